"""`kit ready`."""

import asyncio
import sys
from typing import TYPE_CHECKING

import typer

from app.cli.console import database_errors, fail, load_settings

if TYPE_CHECKING:
    from app.core.configs import AppConfig


def ready() -> None:
    """Ask the database and Redis whether they answer; the health check of workers, which serve no HTTP."""
    settings = load_settings()
    from app.core.api.health import NotReady
    from app.core.services.log import configure_logging

    try:
        with database_errors(settings):
            configure_logging(settings, sys.stderr.buffer)
            asyncio.run(_ask(settings))
    except NotReady as exc:
        fail(exc.detail)
    typer.echo("Everything answers.")


async def _ask(settings: "AppConfig") -> None:
    from app.core.api import health
    from app.core.runtime import open_runtime

    async with open_runtime(settings, run_jobs=False):
        await health.ready()
