"""`kit ready`."""

import asyncio
import sys
from typing import TYPE_CHECKING

from app.cli.console import database_errors, fail, load_settings, say

if TYPE_CHECKING:
    from app.core.api.health import Components
    from app.core.configs import AppConfig


def ready() -> None:
    """Ask whether the database answers and is migrated, and Redis answers; the health check of workers.

    Redis being away is `degraded` with exit code 0, as everything goes on without it.
    """
    settings = load_settings()
    from app.core.api.health import status_of
    from app.core.services.log import configure_logging

    with database_errors(settings):
        configure_logging(settings, sys.stderr.buffer)
        components = asyncio.run(_ask(settings))
    failed = [name for name, component in components.items() if component.status == "failed"]
    if status_of(components) == "unavailable":
        fail(f"Not ready: {', '.join(failed)}.{'' if 'database' in failed else ' Run `kit migrate`.'}")
    say(f"Ready, but degraded: {', '.join(failed)}." if failed else "Everything answers.")


async def _ask(settings: "AppConfig") -> "Components":
    from app.core.api.health import examine
    from app.core.runtime import open_runtime

    async with open_runtime(settings, run_jobs=False):
        return await examine()
