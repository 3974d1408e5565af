"""The log contract."""

from abc import ABC, abstractmethod
from typing import Any


class LogServiceInterface(ABC):
    """Structured log lines: an event text, `%` arguments for it, and named values of any name.

    The `a_` forms do not block the event loop.
    """

    @abstractmethod
    def debug(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    def info(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    def warning(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    def error(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    def critical(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    def exception(self, event: str, /, *args: Any, **values: Any) -> None:
        """An error line with the traceback of the exception being handled."""

    @abstractmethod
    def log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        """A line of a level known only when it is written: a number or name of the standard library's."""

    @abstractmethod
    async def a_debug(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    async def a_info(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    async def a_warning(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    async def a_error(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    async def a_critical(self, event: str, /, *args: Any, **values: Any) -> None: ...

    @abstractmethod
    async def a_exception(self, event: str, /, *args: Any, **values: Any) -> None:
        """An error line with the traceback of the exception being handled."""

    @abstractmethod
    async def a_log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        """A line of a level known only when it is written: a number or name of the standard library's."""
