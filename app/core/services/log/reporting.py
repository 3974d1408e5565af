"""Error reports: an error line of the log that carries an exception also goes to the reporter of the process."""

from abc import abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from app.core.process import ProcessService, Slot

_reporting: ContextVar[bool] = ContextVar("reporting", default=False)


class ErrorReporterInterface(ProcessService):
    """Receives the exceptions of requests, jobs, schedules and of all else that is logged as an error."""

    @abstractmethod
    def report(self, error: BaseException, line: Mapping[str, Any]) -> None:
        """Take an exception and its log line, which is without secrets: `event`, ids, `user`, the named values.

        The text of the exception itself may hold secrets: `line["exception"]` is the traceback without them. Called in
        any thread; must not block.
        """


class LogOnly(ErrorReporterInterface):
    """Reports nowhere: the log is enough."""

    def report(self, error: BaseException, line: Mapping[str, Any]) -> None:
        """Do nothing."""


def report_error(error: BaseException, line: dict[str, Any]) -> None:
    """Hand `error` to the reporter, whose own errors are logged only; `line` says so if it fails."""
    if _reporting.get():
        return
    token = _reporting.set(True)
    try:
        current_reporter().report(error, dict(line))
    except Exception as exc:
        line["report_failed"] = type(exc).__name__
    finally:
        _reporting.reset(token)


current_reporter = Slot[ErrorReporterInterface](LogOnly())
"""The error reporter of this process."""
