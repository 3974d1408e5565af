"""Whether database, Redis and mail server answer, and hold what the code expects. Nothing is changed or sent."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import catch_warnings

from app.cli.doctor.findings import Finding, fault, ok, or_ok, reason, skipped, warning

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from app.core.migrations.migrate import Migrations

SECONDS = 5.0
MAX_SKEW = timedelta(seconds=5)
OVERDUE = timedelta(minutes=10)


def database() -> Iterator[Finding]:
    """It answers."""
    from app.core.configs import app_config

    url = app_config.database_url
    shown = url.render_as_string(hide_password=True)
    if why := _unreachable():
        yield fault("database", f"{shown} does not answer: {why}", "start it, or correct DATABASE_URL")
    else:
        is_there = url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()
        yield ok("database", shown if is_there else f"{shown} will be made")


@lru_cache
def _unreachable() -> str | None:
    """Why the database does not answer, or None where it does."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.configs import app_config
    from app.core.migrations.env import reading

    try:
        with reading(app_config.database_url) as connection:
            connection.exec_driver_sql("SELECT 1")
    except (SQLAlchemyError, OSError) as exc:
        return reason(exc)
    return None


def clock() -> Iterator[Finding]:
    """The database and this machine have the same time."""
    from sqlalchemy import func, select

    from app.core.configs import app_config
    from app.core.db.base import utcnow
    from app.core.migrations.env import reading

    if _unreachable():
        yield skipped("clock", "needs the database")
    elif app_config.database_url.get_backend_name() != "sqlite":  # which has our clock
        with reading(app_config.database_url) as connection:
            before = utcnow()
            theirs: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
            yield from clock_findings(theirs - before - (utcnow() - before) / 2)


def clock_findings(skew: timedelta) -> Iterator[Finding]:
    """What a database whose clock is ahead by `skew` means."""
    if abs(skew) > MAX_SKEW:
        ahead = f"{abs(skew).total_seconds():.0f} s {'ahead of' if skew > timedelta(0) else 'behind'}"
        what = f"the database's clock is {ahead} ours: tokens and leases of other processes end early or late"
        yield fault("clock", what, "synchronize both machines with NTP")
    else:
        yield ok("clock", f"{abs(skew).total_seconds():.1f} s from the database's")


def migrations() -> list[Finding]:
    """The tables are what the code expects."""
    if _unreachable():
        return [skipped("migrations", "needs the database")]
    from app.core.migrations.migrate import Migrations

    with catch_warnings(action="ignore"):  # Alembic's, of what is told here
        return or_ok("migrations", _timelines(Migrations()), "the database is up to date")


def _timelines(known: "Migrations") -> Iterator[Finding]:
    from app.core.exceptions import ConfigError
    from app.core.migrations.check import merge_fix

    for name, line in known.timelines.items():
        try:
            (state,) = known.status(name)
        except ConfigError as exc:
            yield fault("migrations", reason(exc), "bring the revision back, or deploy the code that has it")
            continue
        if len(state.heads) > 1:
            heads = ", ".join(sorted(state.heads))
            yield fault("migrations", f"timeline {name} has several heads: {heads}", merge_fix(line))
        elif state.pending:
            pending = ", ".join(info.revision for info in state.pending)
            yield fault("migrations", f"timeline {name}: not run here yet: {pending}", "kit migrate")
    if orphans := known.orphans():
        what = f"tables of no installed module: {', '.join(orphans)}"
        yield warning("migrations", what, "drop them by hand when nobody needs their rows")


def jobs() -> list[Finding]:
    """None was given up, and none waits for somebody to run it."""
    from sqlalchemy import inspect

    from app.core.configs import app_config
    from app.core.db.jobs import Job
    from app.core.migrations.env import reading

    if _unreachable():
        return [skipped("jobs", "needs the database")]
    with reading(app_config.database_url) as connection:
        if not inspect(connection).has_table(Job.__tablename__):
            return [skipped("jobs", "needs the tables")]
        return or_ok("jobs", _waiting_jobs(connection), "none dead, none overdue")


def _waiting_jobs(connection: "Connection") -> Iterator[Finding]:
    from sqlalchemy import func, select

    from app.core.db.base import utcnow
    from app.core.db.jobs import Job, JobStatus

    if dead := connection.scalar(select(func.count()).where(Job.status == JobStatus.DEAD)):
        what = f"{dead} given up: what they were for has not happened"
        yield warning("jobs", what, "kit jobs list --status dead; after the repair kit jobs retry --all-dead")
    due = select(func.count()).where(Job.finished_at.is_(None), Job.available_at < utcnow() - OVERDUE)
    if overdue := connection.scalar(due):
        what = f"{overdue} due for more than {OVERDUE.seconds // 60} minutes: nobody runs them"
        yield warning("jobs", what, "start kit worker, or set WORKER_IN_APP=true")


def redis() -> Iterator[Finding]:
    """It answers, and will when it is full."""
    from redis import Redis, RedisError

    from app.core.configs import app_config
    from app.core.db.installation import owner_key
    from app.core.services.log.redaction import clean_text

    if app_config.redis_url is None:
        yield skipped("redis", "not used: cache, limits and queue are inside the process")
        return
    shown = clean_text(app_config.redis_url)
    try:
        with Redis.from_url(app_config.redis_url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS) as client:
            client.ping()
            info = client.info()
            owner = client.get(owner_key(app_config.REDIS_KEY_PREFIX)) if app_config.REDIS_KEY_PREFIX else None
    except (RedisError, OSError) as exc:
        yield fault("redis", f"{shown} does not answer: {reason(exc)}", "start it, or correct REDIS_URL")
        return
    if owner and (ours := _identity()) and ours != owner.decode(errors="replace"):
        what = f"another installation uses REDIS_KEY_PREFIX={app_config.REDIS_KEY_PREFIX} there: cache, limits and"
        yield fault("redis", f"{what} wake-ups are shared", "leave REDIS_KEY_PREFIX unset, or give each its own")
    limited, policy = int(info.get("maxmemory", 0)), info.get("maxmemory_policy", "noeviction")
    if limited and policy == "noeviction":
        what = f"{shown} refuses to write when its {limited // 2**20} MiB are full"
        yield warning("redis", what, "set maxmemory-policy to allkeys-lru: everything in it can be lost")
    yield ok("redis", f"{shown}, version {info['redis_version']}, {policy if limited else 'without a memory limit'}")


def _identity() -> str | None:
    """The identity of this installation; None where it has none yet, or the database cannot be read."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.configs import app_config
    from app.core.db.installation import IDENTITY
    from app.core.migrations.env import reading

    try:
        with reading(app_config.database_url) as connection:
            return connection.scalar(IDENTITY)
    except (SQLAlchemyError, OSError):
        return None


def mail() -> list[Finding]:
    """The server speaks as it is configured and takes our password."""
    from app.core.configs import app_config

    if app_config.MAIL_PROVIDER:
        return [skipped("mail", f"sent by {app_config.MAIL_PROVIDER}")]
    if app_config.captures_mail:
        return [skipped("mail", f"captured under {app_config.mail_dir}")]
    return asyncio.run(_ask_smtp())


async def _ask_smtp() -> list[Finding]:
    from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException

    from app.core.configs import app_config as config

    shown = f"{config.SMTP_HOST}:{config.SMTP_PORT}"
    client = SMTP(
        hostname=config.SMTP_HOST, port=config.SMTP_PORT, use_tls=config.SMTP_SSL, start_tls=False, timeout=SECONDS
    )
    try:
        await client.connect()
        await client.ehlo()
        if config.smtp_starttls:
            if not client.supports_extension("starttls"):
                fix = "SMTP_SSL=true where it speaks TLS from the start, SMTP_TLS=false for a server on this machine"
                return [fault("mail", f"{shown} does not offer STARTTLS, which SMTP_TLS asks for", fix)]
            await client.starttls()
        if config.SMTP_USER and config.SMTP_PASSWORD:
            await client.login(config.SMTP_USER, config.SMTP_PASSWORD.get_secret_value())
        await client.quit()
    except SMTPAuthenticationError as exc:
        what = f"{shown} refuses SMTP_USER with SMTP_PASSWORD: {exc.code}"
        return [fault("mail", what, "correct SMTP_USER and SMTP_PASSWORD")]
    except (SMTPException, OSError, UnicodeError) as exc:  # the last of a host name that cannot be one
        fix = "start it, or correct SMTP_HOST, SMTP_PORT, SMTP_TLS and SMTP_SSL"
        return [fault("mail", f"{shown} does not answer as configured: {reason(exc)}", fix)]
    finally:
        client.close()
    return [ok("mail", f"{shown}{' with TLS' if config.smtp_starttls or config.SMTP_SSL else ''}; nothing was sent")]
