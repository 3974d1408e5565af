"""`kit ready`."""

import asyncio
from typing import TYPE_CHECKING

import typer

from app.cli.console import fail, load_settings

if TYPE_CHECKING:
    from app.core.configs import AppConfig


def ready() -> None:
    """Ask the database and Redis whether they answer; the health check of workers, which serve no HTTP."""
    settings = load_settings()
    from app.core.api.health import NotReady

    try:
        asyncio.run(_ask(settings))
    except NotReady as exc:
        fail(exc.detail)
    typer.echo("Everything answers.")


async def _ask(settings: "AppConfig") -> None:
    from app.core.api import health
    from app.core.runtime import open_runtime

    async with open_runtime(settings, run_jobs=False):
        await health.ready()
