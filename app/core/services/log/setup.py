"""Setting the logging of this process up: our lines, and those of every library that uses the standard library."""

import logging
import sys
from typing import Any, BinaryIO

from structlog.typing import FilteringBoundLogger

from app.core.configs import AppConfig
from app.core.configs.app import LogFormat
from app.core.configs.structlog import Output, configure_structlog
from app.core.services.log.lines import TRACEBACK, complete, level_number
from app.core.services.log.service import LogService

logger = LogService(configure_structlog("INFO", "console", Output(), complete))
"""The logger of this process; `configure_logging` gives it its level and format."""

_LOGGED = "kit_logged"
_REFUSED = "ASGI callable returned without completing handshake."
"""What uvicorn calls an error: a websocket that was refused with an answer."""


def configure_logging(settings: AppConfig, output: BinaryIO | None = None) -> None:
    """Apply `LOG_LEVEL` and `LOG_FORMAT` (unset: for people in development, JSON elsewhere) to all loggers."""
    log_format: LogFormat = settings.LOG_FORMAT or ("console" if settings.is_relaxed else "json")
    colors = output is None and sys.stdout.isatty()
    logger.lines = configure_structlog(settings.LOG_LEVEL, log_format, Output(output), complete, colors=colors)
    _route_standard_library(logger.lines, settings.LOG_LEVEL)


def mark_logged(exc: BaseException) -> None:
    """Say that the access log has shown this traceback; the server need not show it again."""
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
            if trace is None and message.startswith(TRACEBACK):  # what a lifespan raised reaches the server as text
                message, trace = message.rstrip().rpartition("\n")[2], message
            self._lines.log(level_number(record.levelno), message, logger=record.name, exc_info=trace)
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
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    # At DEBUG the one writes every statement with its values, the other a line for each byte a stranger sends.
    for name in ("aiosqlite", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # SQLAlchemy's echo brings a handler of its own where its logger has none.
    for name in ("sqlalchemy.engine.Engine", "sqlalchemy.pool"):
        if not logging.getLogger(name).handlers:
            logging.getLogger(name).addHandler(logging.NullHandler())


def _is_news(record: logging.LogRecord) -> bool:
    shown = record.exc_info and record.exc_info[1] and _LOGGED in record.exc_info[1].__dict__
    return not shown and record.msg != _REFUSED
