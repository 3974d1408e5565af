"""`kit ready`."""

import asyncio
import sys
from typing import TYPE_CHECKING

from app.cli.console import database_errors, fail, load_settings, say

if TYPE_CHECKING:
    from app.core.api.health import Details
    from app.core.configs import AppConfig


def ready() -> None:
    """Ask whether the database answers and is migrated, and Redis answers; the health check of workers.

    Redis being away is `degraded` with exit code 0, as everything goes on without it.
    """
    settings = load_settings()
    from app.core.services.log import configure_logging

    with database_errors(settings):
        configure_logging(settings, sys.stderr.buffer)
        found = asyncio.run(_ask(settings))
    failed = ", ".join(found.failed)
    if found.status == "unavailable":
        fail(f"Not ready: {failed}.{'' if 'database' in found.failed else ' Run `kit migrate`.'}")
    say(f"Ready, but degraded: {failed}." if failed else "Everything answers.")


async def _ask(settings: "AppConfig") -> "Details":
    from app.core.api.health import examine
    from app.core.runtime import open_runtime

    async with open_runtime(settings, run_jobs=False):
        return await examine()
