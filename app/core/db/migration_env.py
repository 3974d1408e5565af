"""How Alembic meets each database: locks, transactions, and SQLite's traps. `migrations/env.py` calls `run`."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.script import write_hooks
from sqlalchemy import Connection, Engine, MetaData, NullPool, Table, create_engine, event, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import URL, make_url
from sqlalchemy.types import TypeDecorator

from app.core.configs import app_config
from app.core.db.base import UtcDateTime
from app.core.db.session import begin_sqlite, prepare_sqlite
from app.core.exceptions import ConfigError

_LOCK_KEY = 7_305_882_411  # any number that nothing else on this database locks


def run(metadata: MetaData) -> None:
    """Run what Alembic was asked for, on the database that `-x url=`, the caller or the settings name."""
    chosen = context.get_x_argument(as_dictionary=True).get("url") or context.config.attributes.get("url")
    url = sync_url(make_url(chosen) if chosen else app_config.database_url)
    options: dict[str, Any] = {
        "target_metadata": metadata,
        "render_as_batch": True,  # also on PostgreSQL: the revision made there must run on SQLite
        "render_item": _render_item,
        "compare_type": True,
        "compare_server_default": True,
        "transactional_ddl": True,
    }
    if context.is_offline_mode():
        context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **options)
        with context.begin_transaction():
            context.run_migrations()
        return
    with _engine(url).connect() as connection, _locked(connection):
        context.configure(connection=connection, **options)
        with context.begin_transaction(), _checked(connection):
            context.run_migrations()


def sync_url(url: URL) -> URL:
    """The same database with a driver that blocks: migrations need no event loop, and work inside a running one."""
    return url.set(drivername="sqlite") if url.get_backend_name() == "sqlite" else url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args={"connect_timeout": 5})
    Path(url.database or ".").parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "connect", prepare_sqlite)
    event.listen(engine, "connect", _without_foreign_keys)
    event.listen(engine, "begin", begin_sqlite)
    return engine


def _without_foreign_keys(connection: Any, _record: Any) -> None:
    # A batch alter drops the old table: with foreign keys on that empties its cascading children.
    # The switch does nothing inside a transaction, so it comes before BEGIN.
    connection.execute("PRAGMA foreign_keys=OFF")


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    """One migration at a time: an advisory lock until the connection closes; SQLite's BEGIN IMMEDIATE is one."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_lock(_LOCK_KEY)))
        connection.commit()
    yield


@contextmanager
def _checked(connection: Connection) -> Iterator[None]:
    """On SQLite: what a rebuilt table forgets is kept, and no reference may be left without its row."""
    if connection.dialect.name != "sqlite":
        yield
        return
    counters = _counters(connection)
    event.listen(Table, "before_create", _keep_autoincrement)
    try:
        yield
    finally:
        event.remove(Table, "before_create", _keep_autoincrement)
    _restore_counters(connection, counters)
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        tables = sorted({f"{row[0]} (refers to {row[2]})" for row in broken})
        raise ConfigError(
            f"the migration leaves references without their row: {', '.join(tables)}; nothing was changed"
        )


def _keep_autoincrement(table: Table, _connection: Connection, **_: Any) -> None:
    table.dialect_options["sqlite"]["autoincrement"] = True


def _counters(connection: Connection) -> dict[str, int]:
    """The highest id each table ever had; SQLite keeps it with the table, so a rebuilt one starts anew."""
    if not connection.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'")):
        return {}
    return {row.name: row.seq for row in connection.execute(text("SELECT name, seq FROM sqlite_sequence"))}


def _restore_counters(connection: Connection, before: dict[str, int]) -> None:
    for name, highest in before.items():
        statement = text("UPDATE sqlite_sequence SET seq = :seq WHERE name = :name AND seq < :seq")
        connection.execute(statement, {"name": name, "seq": highest})


def _render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Revisions outlive the application's code, so they name SQLAlchemy's types where they can."""
    if kind != "type":
        return False
    if isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, JSONB):  # away from PostgreSQL it would be rendered with a `Text` that nothing imports
        autogen.imports.add("from sqlalchemy.dialects import postgresql")
        return "postgresql.JSONB()"
    if isinstance(item, TypeDecorator) and not type(item).__module__.startswith("sqlalchemy."):
        autogen.imports.add(f"import {type(item).__module__}")
    return False


@write_hooks.register("format")
def _format(path: str, _options: Any) -> None:
    """Format a new revision, where the development tools are installed."""
    if importlib.util.find_spec("ruff"):
        for arguments in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
            subprocess.run([sys.executable, "-m", "ruff", *arguments, path], check=True)  # noqa: S603
