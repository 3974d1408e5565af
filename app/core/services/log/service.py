"""The logger of this process."""

from typing import Any

from structlog.typing import FilteringBoundLogger

from app.core.services.log.interface import LogServiceInterface
from app.core.services.log.lines import GIVEN, level_number


class LogService(LogServiceInterface):
    """Hands lines to structlog; a level that drops the line costs two calls."""

    def __init__(self, lines: FilteringBoundLogger) -> None:
        self.lines = lines

    def debug(self, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.debug(event, **{GIVEN: (args, values)})

    def info(self, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.info(event, **{GIVEN: (args, values)})

    def warning(self, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.warning(event, **{GIVEN: (args, values)})

    def error(self, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.error(event, **{GIVEN: (args, values)})

    def critical(self, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.critical(event, **{GIVEN: (args, values)})

    def exception(self, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.exception(event, **{GIVEN: (args, values)})

    def log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.log(level_number(level), event, **{GIVEN: (args, values)})

    async def a_debug(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.adebug(event, **{GIVEN: (args, values)})

    async def a_info(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.ainfo(event, **{GIVEN: (args, values)})

    async def a_warning(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.awarning(event, **{GIVEN: (args, values)})

    async def a_error(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.aerror(event, **{GIVEN: (args, values)})

    async def a_critical(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.acritical(event, **{GIVEN: (args, values)})

    async def a_exception(self, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.aexception(event, **{GIVEN: (args, values)})

    async def a_log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.alog(level_number(level), event, **{GIVEN: (args, values)})
