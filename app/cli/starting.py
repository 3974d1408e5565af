"""Start of a server process: wait for the database, migrate it, and print the addresses."""

import asyncio
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from app.cli.migrate import migrations_of

if TYPE_CHECKING:
    from app.core.configs import AppConfig

_WRONG_SETTING = re.compile(r"FATAL.*(authentication|does not exist|pg_hba|no such)|no password supplied")
"""Matches messages of PostgreSQL and poolers about a wrong DATABASE_URL: libpq gives no SQLSTATE for failed logins."""


async def prepare(settings: "AppConfig") -> None:
    """Wait for the database, then migrate it or wait until another process has; raises errors that will not pass."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.api.health import migration_state
    from app.core.db.session import Database
    from app.core.migrations.timelines import known_revisions
    from app.core.process import lifecycle
    from app.core.services.failures import Outage

    prepared = settings.DB_PREPARED_STATEMENTS
    database = Database.connect(settings.database_url, pool_size=1, prepared_statements=prepared)
    outage = Outage("not ready: waiting for the database", "the database is ready", first=0.5, longest=1.0)
    try:
        while True:
            try:
                if settings.MIGRATE_ON_START:
                    await asyncio.to_thread(migrations_of(settings).upgrade)
                    break
                if await migration_state(database, known_revisions()) != "failed":
                    break
                lifecycle.starting = {"database": "ok", "migrations": "failed"}
                problem: Exception = TimeoutError("nobody has migrated it yet")
            except (SQLAlchemyError, OSError) as exc:
                lifecycle.starting = {"database": "failed", "migrations": "failed"}
                problem = exc
                if not _waiting_may_help(settings, exc):
                    raise
            lifecycle.hold_until = 0
            await asyncio.sleep(outage.failed(problem))
    finally:
        await database.close()
    outage.over()


def _waiting_may_help(settings: "AppConfig", error: Exception) -> bool:
    """Return True if waiting may help: the server is unreachable or starting. It never helps with SQLite's file."""
    from app.core.services.failures import UNAVAILABLE

    is_file = settings.database_url.get_backend_name() == "sqlite"
    return isinstance(error, UNAVAILABLE) and not is_file and not _WRONG_SETTING.search(str(error))


async def bootstrap(settings: "AppConfig") -> list[str]:
    """Run the bootstrap of every module; return the lines to show once."""
    from app.core.modules import parts

    news = [line for part in parts("bootstrap") for line in await part.bootstrap()]
    return [*news, *await _shared_prefix(settings)]


async def _shared_prefix(settings: "AppConfig") -> list[str]:
    """Claim an explicit `REDIS_KEY_PREFIX`; return a line if another installation had claimed it."""
    from redis.exceptions import RedisError

    from app.core.db.installation import current_redis, other_owner
    from app.core.db.session import current_database

    redis, prefix = current_redis(), settings.REDIS_KEY_PREFIX
    if redis is None or prefix is None:
        return []
    try:
        other = await other_owner(redis, prefix, current_database())
    except RedisError:
        return []
    return [f"Installation {other} used REDIS_KEY_PREFIX={prefix} before: see kit doctor."] if other else []


def announce(settings: "AppConfig", listener: socket.socket, news: list[str], quiet: bool) -> None:
    """Print the addresses; if `quiet`, only what is shown once."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    # Elsewhere the standard output belongs to the log.
    lines = news if quiet else _welcome(settings, reachable, port, news)
    typer.echo("\n".join(lines), nl=bool(lines), err=not settings.is_relaxed)


def _welcome(settings: "AppConfig", host: str, port: int, news: list[str]) -> list[str]:
    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    title = f"{settings.PROJECT_NAME} is running ({settings.ENVIRONMENT})"
    lines = ["", typer.style(title, fg=typer.colors.GREEN, bold=True), f"  API    {base}{settings.API_V1_STR}"]
    if settings.docs_enabled:
        lines.append(f"  Docs   {base}/docs")
    if settings.captures_mail:
        lines.append(f"  Mail   {settings.mail_dir} (captured; SMTP_HOST sends it)")
    lines += [f"  {name:<5}  {what}" for name, what in _stores(settings).items()]
    lines += [typer.style(f"  {line}", fg=typer.colors.YELLOW) for line in news]
    return [*lines, "  Stop with Ctrl-C.", ""]


def _stores(settings: "AppConfig") -> dict[str, str]:
    """Return where data, cache and jobs are, without passwords."""
    url = settings.database_url
    if url.get_backend_name() == "sqlite":
        database = f"SQLite {url.database}"
    else:
        database = f"PostgreSQL {url.database} on {url.host or 'this machine'}:{url.port or 5432}"
    redis = urlsplit(settings.redis_url or "")
    place = f"{redis.hostname}:{redis.port or 6379}{redis.path}" if redis.hostname else redis.path
    return {
        "Data": database,
        "Redis": place or "none: cache and limits are in this process",
        "Jobs": "run here" if settings.worker_in_app else "run by kit worker and kit scheduler",
    }
