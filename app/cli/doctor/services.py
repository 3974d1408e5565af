"""Checks of database, Redis and mail server, and of what is in them. Nothing is changed or sent."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from warnings import catch_warnings

from aiosmtplib import SMTPException
from redis import Redis, RedisError
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from app.cli.doctor.findings import Finding, fault, ok, reason, skipped, warning
from app.core.configs import app_config
from app.core.db.base import db_now, utcnow
from app.core.db.installation import IDENTITY, owner_key
from app.core.db.jobs import Job, JobStatus
from app.core.exceptions import ConfigError
from app.core.migrations.env import reading
from app.core.migrations.migrate import Migrations, merge_fix
from app.core.services.log.redaction import clean_text
from app.core.services.mail.smtp import MailServerError, SMTPServer, connect

SECONDS = 5.0
MAX_SKEW = timedelta(seconds=5)
OVERDUE = timedelta(minutes=10)


def database() -> list[Finding]:
    """Check that it answers."""
    url = app_config.database_url
    shown = url.render_as_string(hide_password=True)
    try:
        with reading(url) as connection:
            pooled = _is_pooled(connection)
    except (SQLAlchemyError, OSError) as exc:
        return [fault(f"{shown} does not answer: {reason(exc)}", "start it, or correct DATABASE_URL")]
    if pooled and app_config.DB_PREPARED_STATEMENTS:
        what = f"{shown} is behind a pooler: if it hands out transactions, prepared statements fail there"
        return [warning(what, "DB_PREPARED_STATEMENTS=false, unless it hands out sessions")]
    is_there = url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()
    return [ok(shown if is_there else f"{shown} will be made")]


def _is_pooled(connection: Connection) -> bool:
    """True if a pooler, not PostgreSQL, has assigned the process id of the connection."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("SELECT 1")
        return False
    driver = connection.connection.driver_connection
    return driver is not None and driver.info.backend_pid != connection.scalar(select(func.pg_backend_pid()))


def clock() -> list[Finding]:
    """Compare the clock of PostgreSQL with ours."""
    if app_config.database_url.get_backend_name() == "sqlite":  # which has our clock
        return []
    with reading(app_config.database_url) as connection:
        before = utcnow()
        theirs: datetime = connection.execute(select(db_now())).scalar_one()
        return [clock_finding(theirs - before - (utcnow() - before) / 2)]


def clock_finding(skew: timedelta) -> Finding:
    """The finding of a database whose clock is ahead by `skew`."""
    if abs(skew) <= MAX_SKEW:
        return ok(f"{abs(skew).total_seconds():.1f} s from the database's")
    ahead = f"{abs(skew).total_seconds():.0f} s {'ahead of' if skew > timedelta(0) else 'behind'}"
    what = f"the database's clock is {ahead} ours: access tokens end early or late"
    return fault(what, "synchronize both machines with NTP")


def migrations() -> list[Finding]:
    """Check that the tables are what the code expects."""
    with catch_warnings(action="ignore"):  # Alembic's, of what is told here
        return list(_timelines(Migrations()))


def _timelines(known: Migrations) -> Iterator[Finding]:
    for name, line in known.timelines.items():
        try:
            (state,) = known.status(name)
        except ConfigError as exc:
            yield fault(reason(exc), "bring the revision back, or deploy the code that has it")
            continue
        if len(state.heads) > 1:
            heads = ", ".join(sorted(state.heads))
            yield fault(f"timeline {name} has several heads: {heads}", merge_fix(line))
        elif state.pending:
            pending = ", ".join(info.revision for info in state.pending)
            yield fault(f"timeline {name}: not run here yet: {pending}", "kit migrate")
    if orphans := known.orphans():
        what = f"tables of no installed module: {', '.join(orphans)}"
        yield warning(what, "drop them by hand when nobody needs their rows")


def jobs() -> Iterator[Finding]:
    """Find jobs that were given up, and jobs that nobody runs."""
    with reading(app_config.database_url) as connection:
        if not inspect(connection).has_table(Job.__tablename__):
            yield skipped("needs the tables")
            return
        if dead := connection.scalar(select(func.count()).where(Job.status == JobStatus.DEAD)):
            what = f"{dead} given up: what they were for has not happened"
            yield warning(what, "kit jobs list --status dead; after the repair kit jobs retry --all-dead")
        due = select(func.count()).where(Job.finished_at.is_(None), Job.available_at < db_now(-OVERDUE.total_seconds()))
        if overdue := connection.scalar(due):
            what = f"{overdue} due for more than {OVERDUE.seconds // 60} minutes: nobody runs them"
            yield warning(what, "start kit worker, or set WORKER_IN_APP=true")


def redis() -> Iterator[Finding]:
    """Check that it answers, and will when it is full."""
    if app_config.redis_url is None:
        yield skipped("not used: cache, limits and queue are inside the process")
        return
    shown, prefix = clean_text(app_config.redis_url), app_config.REDIS_KEY_PREFIX
    try:
        with Redis.from_url(app_config.redis_url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS) as client:
            client.ping()
            info = client.info()
            owner = client.get(owner_key(prefix)) if prefix else None
    except (RedisError, OSError) as exc:
        yield fault(f"{shown} does not answer: {reason(exc)}", "start it, or correct REDIS_URL")
        return
    if owner and (ours := _identity()) and ours != owner.decode(errors="replace"):
        what = f"another installation uses REDIS_KEY_PREFIX={prefix} there: cache, limits and wake-ups are shared"
        yield fault(what, "leave REDIS_KEY_PREFIX unset, or give each its own")
    limited, policy = int(info.get("maxmemory", 0)), info.get("maxmemory_policy", "noeviction")
    if limited and policy == "noeviction":
        what = f"{shown} refuses to write when its {limited // 2**20} MiB are full"
        yield warning(what, "set maxmemory-policy to allkeys-lru: everything in it can be lost")
    yield ok(f"{shown}, version {info['redis_version']}, {policy if limited else 'without a memory limit'}")


def _identity() -> str | None:
    """The identity of this installation; None where it has none yet, or the database cannot be read."""
    try:
        with reading(app_config.database_url) as connection:
            return connection.scalar(IDENTITY)
    except (SQLAlchemyError, OSError):
        return None


def mail() -> list[Finding]:
    """Check that the server speaks as it is configured and takes our password."""
    if app_config.MAIL_PROVIDER:
        return [skipped(f"sent by {app_config.MAIL_PROVIDER}")]
    if app_config.captures_mail:
        return [skipped(f"captured under {app_config.mail_dir}")]
    return [asyncio.run(_ask_smtp())]


async def _ask_smtp() -> Finding:
    server = replace(SMTPServer.of(app_config), timeout=SECONDS)
    shown = f"{server.host}:{server.port}"
    try:
        client = await connect(server)
        await client.quit()
    except MailServerError as exc:
        what, _, fix = str(exc).rpartition(": ")
        return fault(what, fix)
    except (SMTPException, OSError, UnicodeError) as exc:  # the last of a host name that cannot be one
        fix = "start it, or correct SMTP_HOST, SMTP_PORT, SMTP_TLS and SMTP_SSL"
        return fault(f"{shown} does not answer as configured: {reason(exc)}", fix)
    return ok(f"{shown}{' with TLS' if server.tls or server.ssl else ''}; nothing was sent")
