"""The log contract."""

from abc import ABC, abstractmethod
from typing import Any


class LogServiceInterface(ABC):
    """Structured log lines: an event text and named values. The `a_` forms do not block the event loop."""

    @abstractmethod
    def debug(self, event: str, **values: Any) -> None: ...

    @abstractmethod
    def info(self, event: str, **values: Any) -> None: ...

    @abstractmethod
    def warning(self, event: str, **values: Any) -> None: ...

    @abstractmethod
    def error(self, event: str, **values: Any) -> None: ...

    @abstractmethod
    def exception(self, event: str, **values: Any) -> None:
        """An error line with the traceback of the exception being handled."""

    @abstractmethod
    async def a_debug(self, event: str, **values: Any) -> None: ...

    @abstractmethod
    async def a_info(self, event: str, **values: Any) -> None: ...

    @abstractmethod
    async def a_warning(self, event: str, **values: Any) -> None: ...

    @abstractmethod
    async def a_error(self, event: str, **values: Any) -> None: ...

    @abstractmethod
    async def a_exception(self, event: str, **values: Any) -> None:
        """An error line with the traceback of the exception being handled."""
