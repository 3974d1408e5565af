"""What must be done before the service answers: tables, and what modules need to be there."""

import asyncio
import logging
from typing import TYPE_CHECKING

from app.cli.console import database_errors, fail, load_registries
from app.cli.developer import developer_object

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from app.core.configs import AppConfig
    from app.core.migrations.migrate import Migrations
    from app.core.runtime import Runtime


def migrate_database(settings: "AppConfig") -> None:
    """Bring the tables up to date."""
    quiet_alembic()
    from app.core.exceptions import ConfigError

    with database_errors(settings):
        try:
            migrations_of(settings.database_url).upgrade()
        except ConfigError as exc:
            fail(str(exc))


def migrations_of(url: "URL") -> "Migrations":
    """The migrations of a database. In a checkout, revisions are read completely before they run."""
    from app.core.migrations.migrate import Migrations

    kind: type[Migrations] = developer_object("tools.migrations.developer:DeveloperMigrations", Migrations)
    return kind(url)


def quiet_alembic() -> None:
    """Of all that Alembic says only which revision runs is news."""
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.getLogger("alembic.runtime.migration").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg.startswith("Running")


def bootstrap_modules(settings: "AppConfig") -> list[str]:
    """Let every module make what must be there before the first request; the lines to show once."""
    load_registries()
    with database_errors(settings):
        return asyncio.run(_bootstrap(settings))


async def _bootstrap(settings: "AppConfig") -> list[str]:
    from app.core.modules import parts
    from app.core.runtime import open_runtime

    async with open_runtime(settings, run_jobs=False) as opened:
        news = [line for part in parts("bootstrap") for line in await part.bootstrap()]
        return [*news, *await _shared_prefix(opened)]


async def _shared_prefix(opened: "Runtime") -> list[str]:
    """Claim an explicit `REDIS_KEY_PREFIX`; says so where another installation had claimed it."""
    from redis.exceptions import RedisError

    from app.core.db.installation import other_owner

    prefix = opened.settings.REDIS_KEY_PREFIX
    if opened.redis is None or prefix is None:
        return []
    try:
        other = await other_owner(opened.redis, prefix, opened.database)
    except RedisError:
        return []
    return [f"Installation {other} used REDIS_KEY_PREFIX={prefix} before: see kit doctor."] if other else []
