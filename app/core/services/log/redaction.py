"""Remove from log lines what must not reach them: secrets, and characters that forge lines or drive a terminal."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"
_MAX_DEPTH = 8
_MAX_INTEGER = 2**63  # what orjson writes

# All but `api_key:3`, the identity of a caller.
_WORDS = (
    r"(?!api_key:\d{1,19}\b)(?:password|passwd|passphrase|pwd|secret|token|jwt|authorization|cookie|credential"
    r"|api[_-]?key|private[_-]?key|signing[_-]?key|access[_-]?key)"
)
_SENSITIVE_KEY = re.compile(_WORDS, re.IGNORECASE)
_HINT = re.compile(r"[=:]|bearer\s|eyJ", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer)\s+[\w.~+/=-]+", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")
_URL_USER = re.compile(r"://([^\s/:@]{0,256}):[^\s/]{0,256}@")
_HEADER = re.compile(r"((?:authorization|cookie)[\"']?\s?[=:]\s?)[^\r\n]+", re.IGNORECASE)
_PAIR = re.compile(rf"({_WORDS}[\w.-]{{0,32}}[\"']?\s?[=:]\s?)(?:'[^']*'|\"[^\"]*\"|[^\s&;,'\"#)}}\]]+)", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNPRINTABLE_IN_TRACEBACK = re.compile(_UNPRINTABLE.pattern.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"))
# pydantic quotes the input in its messages; FastAPI's errors show it as a dictionary.
_PYDANTIC_INPUT = re.compile(r"input_value=.*?, input_type=", re.DOTALL)
_FASTAPI_INPUT = re.compile(r"'input': .*")


def clean(values: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return the values without secrets and control characters; every leaf is something JSON knows."""
    cleaned = {}
    for key, value in values.items():
        name, is_secret = _key(key)
        hides = is_secret and value is not None and not isinstance(value, bool)
        cleaned[name] = REDACTED if hides else _clean(value, depth)
    return cleaned


def clean_text(text: str) -> str:
    """Return `text` without secrets, on one line, without escape sequences."""
    if _HINT.search(text):
        text = _without_secrets(text)
    # isprintable is far cheaper than the pattern, and true for nearly every text
    return text if text.isprintable() else _UNPRINTABLE.sub(_escaped, text)


def clean_traceback(text: str) -> str:
    """Return a traceback without secrets, indented, so that no message in it can pass for a line of the log."""
    text = _PYDANTIC_INPUT.sub(f"input_value={REDACTED}, input_type=", text)
    text = _without_secrets(_FASTAPI_INPUT.sub(f"'input': {REDACTED}", text))
    return "    " + _UNPRINTABLE_IN_TRACEBACK.sub(_escaped, text).replace("\n", "\n    ")


def _without_secrets(text: str) -> str:
    text = _BEARER.sub(rf"\1 {REDACTED}", text)
    text = _JWT.sub(REDACTED, text)
    text = _URL_USER.sub(rf"://\1:{REDACTED}@", text)
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    return _PAIR.sub(rf"\1{REDACTED}", text)


@lru_cache(maxsize=4096)
def _key(key: str) -> tuple[str, bool]:
    """Return the key as it may be shown, and whether its value must be hidden."""
    return clean_text(key), _SENSITIVE_KEY.search(key) is not None


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value if _fits_json(value) else str(value)
    try:
        if depth < _MAX_DEPTH:
            if isinstance(value, Mapping):
                return clean({str(key): item for key, item in value.items()}, depth + 1)
            if isinstance(value, list | tuple | set | frozenset):
                return [_clean(item, depth + 1) for item in value]
    except Exception:
        return _unshowable(value)
    return clean_text(text_of(value))


def text_of(value: object) -> str:
    """Return `str(value)`, or its type if that raises: a value must not stop a log line."""
    try:
        return str(value)
    except Exception:
        return _unshowable(value)


def _unshowable(value: object) -> str:
    return f"<{type(value).__name__} that cannot be shown>"


def _fits_json(value: float | None) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or -_MAX_INTEGER <= value < _MAX_INTEGER


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
