"""The logger of this process."""

from typing import Any

from structlog.typing import FilteringBoundLogger

from app.core.services.log.interface import LogServiceInterface


class LogService(LogServiceInterface):
    """Hands lines to structlog; a level that drops the line costs two calls."""

    def __init__(self, lines: FilteringBoundLogger) -> None:
        self.lines = lines

    def debug(self, event: str, **values: Any) -> None:
        self.lines.debug(event, **values)

    def info(self, event: str, **values: Any) -> None:
        self.lines.info(event, **values)

    def warning(self, event: str, **values: Any) -> None:
        self.lines.warning(event, **values)

    def error(self, event: str, **values: Any) -> None:
        self.lines.error(event, **values)

    def exception(self, event: str, **values: Any) -> None:
        self.lines.exception(event, **values)

    async def a_debug(self, event: str, **values: Any) -> None:
        await self.lines.adebug(event, **values)

    async def a_info(self, event: str, **values: Any) -> None:
        await self.lines.ainfo(event, **values)

    async def a_warning(self, event: str, **values: Any) -> None:
        await self.lines.awarning(event, **values)

    async def a_error(self, event: str, **values: Any) -> None:
        await self.lines.aerror(event, **values)

    async def a_exception(self, event: str, **values: Any) -> None:
        await self.lines.aexception(event, **values)
