"""Limits on well-formed JSON: its size, depth, repeated names, numbers, and text that no column can hold.

JSON that is not well formed is left to FastAPI, which tells the place.
"""

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any, NoReturn, TypeAlias

MAX_DEPTH = 64
"""Levels of arrays and objects; Python's parser gives up at a thousand or so."""
MAX_NODES = 10_000
"""Values in a body: decoding, checking and reporting cost time for each."""
MAX_NAMES = 200
"""Names in an object."""

Fault: TypeAlias = tuple[str, str]
"""Type and message."""

# NUL, or half of a surrogate pair. Only in text without escaped backslashes: `\\u0000` is none.
_UNFIT_ESCAPE = re.compile(
    rb"\\u(?:0000|[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)[dD][c-fC-F])"
)

_TEXT: Fault = ("string_unicode", "Text must be UTF-8 without NUL characters")
_DEPTH: Fault = ("json_depth", f"Arrays and objects may be nested {MAX_DEPTH} levels deep at most")
_DUPLICATE: Fault = ("json_duplicate_name", "An object may have each name once")
_NAMES: Fault = ("json_names", f"An object may have {MAX_NAMES} names at most")
_NUMBERS: Fault = ("json_number", "Numbers must be finite, whole ones of 4300 digits at most")


class _Refused(Exception):
    """A rule of ours is broken."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(*fault)
        self.fault = fault


def json_fault(body: bytes, max_nodes: int = MAX_NODES) -> Fault | None:
    """The first fault of a body; None where there is none or it is no JSON at all. Counts before it decodes."""
    if _has_more_nodes(body, max_nodes):
        return ("json_nodes", f"A body may hold {max_nodes} values at most")
    if not is_text(body) or _has_unfit_escape(body):
        return _TEXT
    return _decoding_fault(body)


def _decoding_fault(body: bytes) -> Fault | None:
    try:
        _check(body)
    except json.JSONDecodeError:
        return None
    except RecursionError:
        return _DEPTH
    except _Refused as refused:
        return refused.fault
    except ValueError:  # more digits than Python turns into an integer
        return _NUMBERS
    return None


def is_text(data: bytes) -> bool:
    """Whether this is UTF-8 without NUL."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _has_more_nodes(body: bytes, limit: int) -> bool:
    """Whether a body holds more than `limit` values: each but the first follows a comma or an opening bracket."""
    if _separators(body) < limit:
        return False
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * limit:  # each value has at most a name and a text
        return True
    outside_texts = b"0".join(bare.split(b'"')[::2]).translate(None, b" \t\r\n")
    return _separators(outside_texts) - outside_texts.count(b"[]") - outside_texts.count(b"{}") >= limit


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _has_unfit_escape(body: bytes) -> bool:
    return b"\\u" in body and _UNFIT_ESCAPE.search(body.replace(rb"\\", b"  ")) is not None


def _check(body: bytes) -> None:
    value = _DECODER.decode(body.decode("utf-8-sig"))
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_too_deep(value):
        raise _Refused(_DEPTH)


def _is_too_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node) if isinstance(child, dict | list)]
    return bool(level)


def _children(node: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members) > MAX_NAMES:
        raise _Refused(_NAMES)
    found = dict(members)
    if len(found) != len(members):
        raise _Refused(_DUPLICATE)
    return found


def _number(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise _Refused(_NUMBERS)
    return number


def _constant(_name: str) -> NoReturn:
    raise _Refused(_NUMBERS)  # NaN and the infinities are Python's, not JSON's


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
