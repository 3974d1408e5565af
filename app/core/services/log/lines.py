"""Content of a log line: the event with its arguments, time, ids and values, without secrets."""

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from app.core.services.log.context import conversation_id, request_id
from app.core.services.log.redaction import clean, clean_text, clean_traceback, text_of

TRACEBACK = "Traceback (most recent call last):\n"
"""What the text of one begins with."""

GIVEN = "kit_given"
"""Carries a call's arguments and values in one piece: structlog's own parameters would collide with their names."""


def level_number(level: int | str) -> int:
    """The level that structlog knows for a number or a name; INFO for a name that is none."""
    if isinstance(level, str):
        level = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    return min(max(level // 10 * 10, logging.DEBUG), logging.CRITICAL)


def complete(_logger: Any, method: str, given: MutableMapping[str, Any]) -> dict[str, Any]:
    """A structlog processor: the whole line. A value that cannot be shown must not stop the call."""
    args, values = given.pop(GIVEN, ((), {}))
    event, given = given.pop("event", ""), {**given, **values}
    exc_info = given.pop("exc_info", None)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {"timestamp": now, "level": method, "event": clean_text(_interpolated(event, args))}
    if request := request_id():
        line["request_id"] = request
    if conversation := conversation_id():
        line["conversation_id"] = conversation
    line |= clean({f"{name}_" if name in line else name: value for name, value in given.items()})
    if text := _traceback(exc_info):
        line["exception"] = clean_traceback(text)
    return line


def _interpolated(event: Any, args: tuple[Any, ...]) -> str:
    """`"hello %s", name` as the standard library does it; arguments that do not fit are shown behind the text."""
    if not args:
        return text_of(event)
    try:
        return str(event % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args))
    except Exception:  # of a value's own __str__ too
        return " ".join(map(text_of, (event, *args)))


def _traceback(exc_info: Any) -> str | None:
    """The text of what `exc_info` may be: an exception, its triple, True for the one being handled, or the text."""
    if not exc_info:
        return None
    if isinstance(exc_info, str):
        return exc_info.rstrip("\n")
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif not (isinstance(exc_info, tuple) and len(exc_info) == 3):
        exc_info = sys.exc_info()
    kind, exc, trace = exc_info
    return _format(kind, exc, trace) if exc is not None else None


def _format(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> str:
    return "".join(traceback.format_exception(kind, exc, trace)).rstrip("\n")
