"""Limits on well-formed JSON: its size, depth, repeated names, numbers, and text that no column can hold.

JSON that is not well formed is left to FastAPI, which tells the place.
"""

import json
import re
from itertools import accumulate
from math import isfinite
from typing import Any, NoReturn

from app.core.exceptions import InvalidInputError

MAX_DEPTH = 64
"""Levels of arrays and objects; Python's parser gives up at a thousand or so."""
MAX_NODES = 10_000
"""Values in a body: decoding, checking and reporting cost time for each."""
MAX_NAMES = 200
"""Names in an object."""

NOT_TEXT = "Text must be UTF-8 without NUL characters"
_NOT_FINITE = "Numbers must be finite, whole ones of 4300 digits at most"

# NUL, or half of a surrogate pair. Only in text without escaped backslashes: `\\u0000` is none.
_UNFIT_ESCAPE = re.compile(
    rb"\\u(?:0000|[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)[dD][c-fC-F])"
)

# Read as signed bytes: one level more for each opening bracket, one less for each closing one.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def check_json(body: bytes, max_nodes: int = MAX_NODES) -> None:
    """Raise InvalidInputError for the first fault of a body. Counts before it decodes."""
    if _separators(body) > MAX_DEPTH:
        _check_structure(body, max_nodes)
    if not is_text(body) or (b"\\u" in body and _UNFIT_ESCAPE.search(body.replace(rb"\\", b"  "))):
        raise _fault("string_unicode", NOT_TEXT)
    try:
        _DECODER.decode(body.decode("utf-8-sig"))
    except json.JSONDecodeError:
        return
    except ValueError as exc:  # more digits than Python turns into an integer
        raise _fault("json_number", _NOT_FINITE) from exc


def is_text(data: bytes) -> bool:
    """Check that this is UTF-8 without NUL."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _fault(kind: str, message: str) -> InvalidInputError:
    return InvalidInputError(errors=[{"loc": ["body"], "msg": message, "type": kind}])


def _check_structure(body: bytes, max_nodes: int) -> None:
    """Refuse too many values or levels by what stands outside of texts. Each value but the first follows `,[{`."""
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * max_nodes:  # each value has at most a name and a text
        raise _too_many(max_nodes)
    structure = b"0".join(bare.split(b'"')[::2]).translate(None, b" \t\r\n")
    steps = structure.translate(_STEPS, _NO_BRACKETS)
    values = _separators(structure) - structure.count(b"[]") - structure.count(b"{}") + 1
    if values > max_nodes or len(steps) > 2 * max_nodes:  # an array or object is a value with two brackets
        raise _too_many(max_nodes)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH:
        raise _fault("json_depth", f"Arrays and objects may be nested {MAX_DEPTH} levels deep at most")


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _too_many(max_nodes: int) -> InvalidInputError:
    return _fault("json_nodes", f"A body may hold {max_nodes} values at most")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members) > MAX_NAMES:
        raise _fault("json_names", f"An object may have {MAX_NAMES} names at most")
    found = dict(members)
    if len(found) != len(members):
        raise _fault("json_duplicate_name", "An object may have each name once")
    return found


def _number(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise _fault("json_number", _NOT_FINITE)
    return number


def _constant(_name: str) -> NoReturn:
    raise _fault("json_number", _NOT_FINITE)  # NaN and the infinities are Python's, not JSON's


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
