"""An answer that ends its process amid the first erasure."""

import os
import signal
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.configs import get_settings
from tests.faults.journal import Journal, note


class Interruption:
    """Keeps nothing about users."""

    async def export(self, user_id: int, *, db: AsyncSession) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield that there is nothing."""
        yield "nothing", {}

    async def erase(self, user_id: int, *, db: AsyncSession) -> None:
        """End the process, as `kill -9` does; the next one goes on."""
        first = not Journal(get_settings().var_dir).of("erasing")
        note("erasing", user_id)
        if first:
            os.kill(os.getpid(), signal.SIGKILL)


personal_data = Interruption()
