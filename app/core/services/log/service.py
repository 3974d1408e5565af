"""The logger of this process."""

from typing import Any

from structlog.typing import FilteringBoundLogger

from app.core.services.log.interface import LogServiceInterface
from app.core.services.log.lines import GIVEN, level_number


class LogService(LogServiceInterface):
    """Hands lines to structlog; a level that drops the line costs a few calls."""

    def __init__(self, lines: FilteringBoundLogger) -> None:
        self.lines = lines

    def log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        self.lines.log(level_number(level), event, **{GIVEN: (args, values)})

    async def a_log(self, level: int | str, event: str, /, *args: Any, **values: Any) -> None:
        await self.lines.alog(level_number(level), event, **{GIVEN: (args, values)})
