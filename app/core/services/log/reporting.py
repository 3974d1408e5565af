"""Error reports: hand every error line with an exception to the error reporter of the process as well."""

from abc import abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from app.core.process import ProcessService, Slot

_reporting: ContextVar[bool] = ContextVar("reporting", default=False)


class ErrorReporterInterface(ProcessService):
    """Receives every exception that is logged as an error: of requests, jobs, schedules and everything else."""

    @abstractmethod
    def report(self, error: BaseException, line: Mapping[str, Any]) -> None:
        """Report an exception with its log line: `event`, ids, `user` and the named values, with secrets removed.

        The text of the exception itself may hold secrets; `line["exception"]` is the traceback without them. May be
        called in any thread, and must not block.
        """


class LogOnly(ErrorReporterInterface):
    """Reports to the log only."""

    def report(self, error: BaseException, line: Mapping[str, Any]) -> None:
        """Do nothing."""


def report_error(error: BaseException, line: dict[str, Any]) -> None:
    """Hand `error` to the reporter. If that fails, add `report_failed` to `line`; its own errors are not reported."""
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
