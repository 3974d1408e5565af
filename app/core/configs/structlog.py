"""Set up structlog: processors, renderers, level. `app.core.services.log` defines what a line holds."""

import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, BinaryIO

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from app.core.configs.app import LogFormat, LogLevel

_GENERATED_LENGTH = 32
_READ_LAST = ("client", "request_id", "conversation_id")


class Output:
    """Writes whole lines to its stream, or to whatever standard output is at that moment."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Write one line and flush it. A full disk or a closed pipe loses the line, never the request that logs."""
        with self._lock, suppress(OSError, ValueError):
            stream = self._stream or sys.stdout.buffer
            stream.write(line + b"\n")
            stream.flush()

    debug = info = warning = error = critical = write


def configure_structlog(
    level: LogLevel, log_format: LogFormat, output: Output, complete: Processor, *, colors: bool = False
) -> FilteringBoundLogger:
    """Return a structlog logger that writes to `output`; `complete` adds time and ids, and removes secrets."""
    renderer = _render_json if log_format == "json" else _console_renderer(colors)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, complete, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        logger_factory=lambda *_: output,
    )
    lines: FilteringBoundLogger = structlog.get_logger().bind()
    return lines


def _render_json(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(line)


def _console_renderer(colors: bool) -> Processor:
    render = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )

    def to_bytes(logger: Any, method: str, line: MutableMapping[str, Any]) -> bytes:
        return render(logger, method, _for_people(line)).encode()

    return to_bytes


def _for_people(line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put what matters first: a request as `GET /path 200 15 ms`, the ids at the end."""
    line["timestamp"] = line["timestamp"].replace("+00:00", "Z")
    if line["event"] == "request" and {"method", "route", "status", "duration_ms"} <= line.keys():
        took = line.pop("duration_ms")
        took = round(took, 1 if took < 10 else None)
        # No route: refused before one was looked for.
        line["event"] = f"{line.pop('method')} {line.pop('route') or '-'} {line.pop('status')} {took} ms"
    for name in _READ_LAST:
        if (value := line.pop(name, None)) is not None:
            line[name] = value
    # Nobody looks for it by hand; the id of the request stays whole, as an error's answer shows it.
    if len(line.get("conversation_id", "")) == _GENERATED_LENGTH:
        line["conversation_id"] = line["conversation_id"][:8]
    return line
