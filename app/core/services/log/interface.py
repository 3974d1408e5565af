"""The log contract."""

import sys
from abc import ABC, abstractmethod
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from typing import Any


class LogServiceInterface(ABC):
    """Structured log lines: an event text, `%` arguments for it, and named values of any name.

    The `a_` forms do not block the event loop.
    """

    @abstractmethod
    def log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        """A line of a level known only when it is written: a number or name of the standard library's."""

    @abstractmethod
    async def a_log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        """As `log`."""

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
        """An error line with the traceback of the exception being handled."""
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
        """An error line with the traceback of the exception being handled."""
        await self.a_log(ERROR, event, *args, **{"exc_info": sys.exc_info(), **values})
