"""How a line is made: ids and time added, secrets removed, rendered as JSON or for a terminal, written once."""

import sys
import threading
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, BinaryIO, Literal

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from app.core.services.log.context import conversation_id, request_id
from app.core.services.log.redaction import clean, clean_text, clean_traceback

TRACEBACK = "Traceback (most recent call last):\n"
"""What the text of one begins with."""

LogFormat = Literal["json", "console"]


class Output:
    """Writes whole lines; without a stream of its own to whatever standard output is at that moment."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Write one line and flush it."""
        with self._lock:
            stream = self._stream or sys.stdout.buffer
            stream.write(line + b"\n")
            stream.flush()

    debug = info = warning = error = critical = write


def make_lines(level: str, log_format: LogFormat, output: Output, *, colors: bool = False) -> FilteringBoundLogger:
    """A structlog logger that writes to `output`."""
    processors: list[Processor] = [structlog.contextvars.merge_contextvars, _complete]
    processors.append(_render_json if log_format == "json" else _console_renderer(colors))
    wrapper = structlog.make_filtering_bound_logger(level)
    structlog.configure(
        processors=processors, wrapper_class=wrapper, context_class=dict, logger_factory=lambda *_: output
    )
    lines: FilteringBoundLogger = structlog.get_logger().bind()
    return lines


def _complete(_logger: Any, method: str, given: MutableMapping[str, Any]) -> dict[str, Any]:
    event, exc_info = given.pop("event"), given.pop("exc_info", None)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {"timestamp": now, "level": method, "event": clean_text(str(event))}
    if request := request_id():
        line["request_id"] = request
    if conversation := conversation_id():
        line["conversation_id"] = conversation
    line |= clean({f"{name}_" if name in line else name: value for name, value in given.items()})
    if text := _traceback(exc_info):
        line["exception"] = clean_traceback(text)
    return line


def _traceback(exc_info: Any) -> str | None:
    """The text of what `exc_info` may be: an exception, its triple, True for the one being handled, or the text."""
    if not exc_info:
        return None
    if isinstance(exc_info, str):
        return exc_info.rstrip("\n")
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif not isinstance(exc_info, tuple):
        exc_info = sys.exc_info()
    kind, exc, trace = exc_info
    return _format(kind, exc, trace) if exc is not None else None


def _format(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> str:
    return "".join(traceback.format_exception(kind, exc, trace)).rstrip("\n")


def _render_json(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(line)


def _console_renderer(colors: bool) -> Processor:
    render = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)

    def to_bytes(logger: Any, method: str, line: MutableMapping[str, Any]) -> bytes:
        return render(logger, method, line).encode()

    return to_bytes
