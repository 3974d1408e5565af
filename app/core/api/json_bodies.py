"""What is refused in JSON that is well formed: text no column can hold, depth, names given twice, numbers.

JSON that is not well formed is left to FastAPI, which tells the place.
"""

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any, NoReturn

MAX_DEPTH = 64
"""How deep arrays and objects may be nested; Python's parser gives up at a thousand or so."""

# Consumes every escape from left to right, so that `\\u0000` (an escaped backslash) is not taken for NUL; a pair of
# surrogates is fine.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<unfit>u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

_TEXT = ("string_unicode", "Text must be UTF-8 without NUL characters")
_DEPTH = ("json_depth", f"Arrays and objects may be nested {MAX_DEPTH} levels deep at most")
_NAMES = ("json_duplicate_name", "An object may have each name once")
_NUMBERS = ("json_number", "Numbers must be finite, whole ones of 4300 digits at most")


class _Refused(Exception):
    """A rule of ours is broken."""

    def __init__(self, fault: tuple[str, str]) -> None:
        super().__init__(*fault)
        self.fault = fault


def json_fault(body: bytes) -> tuple[str, str] | None:
    """Type and message of what is wrong with a body, or None where nothing is or it is no JSON at all."""
    if not is_text(body) or _has_unfit_escape(body):
        return _TEXT
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


def _has_unfit_escape(body: bytes) -> bool:
    return b"\\u" in body and any(escape["unfit"] for escape in _ESCAPE.finditer(body))


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
    found = dict(members)
    if len(found) != len(members):
        raise _Refused(_NAMES)
    return found


def _number(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise _Refused(_NUMBERS)
    return number


def _constant(_name: str) -> NoReturn:
    raise _Refused(_NUMBERS)  # NaN and the infinities are Python's, not JSON's


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
