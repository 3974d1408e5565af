"""The log service: its contract, what a line holds, and the setup, which covers the standard library's loggers too."""

import logging
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from typing import Any, BinaryIO

from structlog.typing import FilteringBoundLogger

from app.core.configs import AppConfig
from app.core.configs.app import LogFormat
from app.core.configs.structlog import Output, configure_structlog
from app.core.services.log.context import conversation_id, request_id
from app.core.services.log.redaction import clean, clean_text, clean_traceback, text_of
from app.core.services.log.reporting import report_error

_TRACEBACK = "Traceback (most recent call last):\n"
_LOGGED = "kit_logged"
_REFUSED = "ASGI callable returned without completing handshake."
"""An error to uvicorn, but not to us: a websocket was refused with an HTTP response."""

_CALL = "kit_call"
"""Carries a call's arguments and values in one piece: structlog's own parameters would collide with their names."""


class LogServiceInterface(ABC):
    """Structured log lines: an event text, `%` arguments for it, and named values of any name.

    The `a_` forms do not block the event loop.
    """

    @abstractmethod
    def log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        """Write a line whose level is a number or a name of the standard library's."""

    @abstractmethod
    async def a_log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        """Write a line as `log` does."""

    def debug(self, event: str, /, *args: Any, **values: Any) -> None:
        self.log(DEBUG, event, *args, **values)

    def info(self, event: str, /, *args: Any, **values: Any) -> None:
        self.log(INFO, event, *args, **values)

    def warning(self, event: str, /, *args: Any, **values: Any) -> None:
        self.log(WARNING, event, *args, **values)

    def error(self, event: str, /, *args: Any, **values: Any) -> None:
        self.log(ERROR, event, *args, **values)

    def critical(self, event: str, /, *args: Any, **values: Any) -> None:
        self.log(CRITICAL, event, *args, **values)

    def exception(self, event: str, /, *args: Any, **values: Any) -> None:
        """Write an error line with the traceback of the exception being handled."""
        self.log(ERROR, event, *args, **{"exc_info": sys.exc_info(), **values})

    async def a_debug(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.a_log(DEBUG, event, *args, **values)

    async def a_info(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.a_log(INFO, event, *args, **values)

    async def a_warning(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.a_log(WARNING, event, *args, **values)

    async def a_error(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.a_log(ERROR, event, *args, **values)

    async def a_critical(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.a_log(CRITICAL, event, *args, **values)

    async def a_exception(self, event: str, /, *args: Any, **values: Any) -> None:
        """Write an error line with the traceback of the exception being handled."""
        await self.a_log(ERROR, event, *args, **{"exc_info": sys.exc_info(), **values})


class LogService(LogServiceInterface):
    """Hands lines to structlog; a line below the level costs a few calls."""

    def __init__(self, lines: FilteringBoundLogger) -> None:
        self.lines = lines

    def log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.log(_level_number(level), event, **{_CALL: (args, values)})

    async def a_log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.alog(_level_number(level), event, **{_CALL: (args, values)})


def _level_number(level: int | str) -> int:
    """Return structlog's level for a number or a name; INFO for an unknown name."""
    if isinstance(level, str):
        level = logging.getLevelNamesMapping().get(level.upper(), INFO)
    return min(max(level // 10 * 10, DEBUG), CRITICAL)


def _complete(_logger: Any, method: str, given: MutableMapping[str, Any]) -> dict[str, Any]:
    """Build the whole line, as a structlog processor. A value that cannot be shown must not stop the call."""
    args, values = given.pop(_CALL, ((), {}))
    event, given = given.pop("event", ""), {**given, **values}
    exc_info = given.pop("exc_info", None)
    error = _exception(exc_info)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {"timestamp": now, "level": method, "event": clean_text(_interpolated(event, args))}
    if request := request_id():
        line["request_id"] = request
    if conversation := conversation_id():
        line["conversation_id"] = conversation
    line |= clean({f"{name}_" if name in line else name: value for name, value in given.items()})
    text = "".join(traceback.format_exception(error)) if error else exc_info
    if isinstance(text, str):
        line["exception"] = clean_traceback(text.rstrip("\n"))
    if error and method in ("error", "critical"):
        report_error(error, line)
    return line


def _interpolated(event: Any, args: tuple[Any, ...]) -> str:
    """Format `"hello %s", name` as the standard library does; append arguments that do not fit."""
    if not args:
        return text_of(event)
    try:
        return str(event % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args))
    except Exception:  # of a value's own __str__ too
        return " ".join(map(text_of, (event, *args)))


def _exception(exc_info: Any) -> BaseException | None:
    """Return the exception of what `exc_info` may be: it, its triple, True for the one being handled, or a text."""
    if isinstance(exc_info, tuple) and len(exc_info) == 3:
        exc_info = exc_info[1]
    elif exc_info and not isinstance(exc_info, BaseException | str):
        exc_info = sys.exception()
    return exc_info if isinstance(exc_info, BaseException) else None


logger = LogService(configure_structlog("INFO", "console", Output(), _complete))
"""The logger of this process; `configure_logging` gives it its level and format."""


def configure_logging(settings: AppConfig, output: BinaryIO | None = None) -> None:
    """Apply `LOG_LEVEL` and `LOG_FORMAT` (unset: for people in development, JSON elsewhere) to all loggers."""
    log_format: LogFormat = settings.LOG_FORMAT or ("console" if settings.is_relaxed else "json")
    colors = output is None and sys.stdout.isatty()
    logger.lines = configure_structlog(settings.LOG_LEVEL, log_format, Output(output), _complete, colors=colors)
    _route_standard_library(logger.lines, settings.LOG_LEVEL)


def mark_logged(exc: BaseException) -> None:
    """Mark an exception whose traceback the access log has shown: the server need not show it again."""
    exc.__dict__[_LOGGED] = True


class Forward(logging.Handler):
    """Sends a record of the standard library the same way as our own lines."""

    def __init__(self, lines: FilteringBoundLogger) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            trace: Any = record.exc_info
            if trace is None and message.startswith(_TRACEBACK):  # what a lifespan raised reaches the server as text
                message, trace = message.rstrip().rpartition("\n")[2], message
            self._lines.log(_level_number(record.levelno), message, logger=record.name, exc_info=trace)
        except Exception:
            self.handleError(record)


def _route_standard_library(lines: FilteringBoundLogger, level: str) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        # by exact type: test runners attach subclasses of their own
        if type(handler) in (Forward, logging.StreamHandler):
            root.removeHandler(handler)
    root.addHandler(Forward(lines))
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "taskiq"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)  # ours replaces it
    logging.getLogger("uvicorn.error").addFilter(_is_not_logged_yet)
    # At DEBUG they write every statement with its values, a line for each byte a stranger sends, headers and URLs.
    for name in ("aiosqlite", "python_multipart", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # SQLAlchemy's echo brings a handler of its own where its logger has none.
    for name in ("sqlalchemy.engine.Engine", "sqlalchemy.pool"):
        if not logging.getLogger(name).handlers:
            logging.getLogger(name).addHandler(logging.NullHandler())


def _is_not_logged_yet(record: logging.LogRecord) -> bool:
    shown = record.exc_info and record.exc_info[1] and _LOGGED in record.exc_info[1].__dict__
    return not shown and record.msg != _REFUSED
