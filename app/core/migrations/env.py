"""Run Alembic on each database: locks, transactions, and SQLite's traps. `migrations/env.py` calls `run`."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import context
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, func, select, text
from sqlalchemy.engine import URL, make_url

from app.core.configs import app_config, make_private
from app.core.db.engines import begin_sqlite, make_private_file, prepare_sqlite, tcp_options
from app.core.migrations import dialects  # noqa: F401  registers itself with Alembic
from app.core.migrations.timelines import SHARED, MigrationError, Timeline, Timelines, installed_timelines

_LOCK_KEY = 7_305_882_411  # any number that nothing else on this database locks
_WAIT_SECONDS = 3600

logger = logging.getLogger(__name__)
Comparing = Callable[[Timelines, Timeline, Connection, ScriptDirectory], dict[str, Any]]


def run(comparing: Comparing | None) -> None:
    """Run what Alembic was asked for, on the timeline and the database that the caller names.

    The `alembic` command names neither: it works on the shared timeline, at `-x url=` or what the settings say.
    `comparing` gives the options of autogenerate, which only developers have.
    """
    asked = context.config.attributes
    timelines = asked.get("timelines") or installed_timelines()
    timeline: Timeline = asked.get("timeline") or timelines[SHARED]
    options = environment_options(timelines, timeline)
    if context.is_offline_mode():
        context.configure(url=_url(), literal_binds=True, dialect_opts={"paramstyle": "named"}, **options)
        with context.begin_transaction():
            context.run_migrations()
        return
    given = asked.get("connection")
    with nullcontext(given) if given is not None else connected(_url()) as connection:
        if comparing is not None:
            options |= comparing(timelines, timeline, connection, context.script)
        context.configure(connection=connection, on_version_apply=asked.get("on_version_apply", ()), **options)
        with context.begin_transaction(), _checked(connection), quiet():
            context.run_migrations()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings about what SQLAlchemy and Alembic do not see, and our dialects and comparison do."""
    with warnings.catch_warnings():
        for unseen in ("Skipped unsupported reflection", "autogenerate skipping", "Computed default on"):
            warnings.filterwarnings("ignore", unseen)
        yield


def environment_options(timelines: Timelines, timeline: Timeline) -> dict[str, Any]:
    """Options with which Alembic sees the tables of `timeline`, and no others."""

    def owned(table: str | None) -> bool:
        return table is not None and timelines.owner(table) is timeline

    def include_name(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or owned(name)

    def include_object(_item: Any, name: str | None, kind: str, reflected: bool, _compared: Any) -> bool:
        if kind != "table" or owned(name):
            return True
        if not reflected and name is not None and timelines.prefix(name) is None:
            logger.warning("The table %s is left out: no installed module has a name that it begins with.", name)
        return False

    return {
        "target_metadata": timeline.metadata,
        "version_table": timeline.version_table,
        "include_name": include_name,
        "include_object": include_object,
        "transactional_ddl": True,
    }


def _url() -> URL:
    chosen = context.get_x_argument(as_dictionary=True).get("url") or context.config.attributes.get("url")
    return make_url(chosen) if chosen else app_config.database_url


@contextmanager
def connected(url: URL) -> Iterator[Connection]:
    """A connection to migrate with; no other process migrates this database while it is open."""
    with _engine(sync_url(url)).connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_lock(_LOCK_KEY)))
            connection.commit()
        yield connection  # on SQLite the BEGIN IMMEDIATE of each timeline's transaction is the lock


@contextmanager
def reading(url: URL) -> Iterator[Connection]:
    """A connection to look with: waits for no migration, makes no SQLite file where there is none."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        url = url.set(database=":memory:")
    with _engine(sync_url(url)).connect().execution_options(kit_read_only=True) as connection:
        yield connection


def sync_url(url: URL) -> URL:
    """The same database with a driver that blocks: migrations need no event loop, and work inside a running one."""
    return url.set(drivername="sqlite") if url.get_backend_name() == "sqlite" else url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=tcp_options(url))
    make_private(Path(url.database or ".").parent)
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "do_connect", make_private_file)
    event.listen(engine, "connect", prepare_sqlite)
    event.listen(engine, "connect", _without_foreign_keys)
    event.listen(engine, "begin", begin_sqlite)
    return engine


def _without_foreign_keys(connection: Any, _record: Any) -> None:
    # A batch alter drops the old table: with foreign keys on that empties its cascading children.
    # The switch does nothing inside a transaction, so it comes before BEGIN.
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute(f"PRAGMA busy_timeout={_WAIT_SECONDS * 1000}")  # another process may migrate for long


@contextmanager
def _checked(connection: Connection) -> Iterator[None]:
    """On SQLite: keep the counters of rebuilt tables; refuse to commit a reference without its row."""
    if connection.dialect.name != "sqlite":
        yield
        return
    counters = _counters(connection)
    yield
    _restore_counters(connection, counters)
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        tables = sorted({f"{row[0]} (refers to {row[2]})" for row in broken})
        raise MigrationError(
            f"the migration leaves references without their row: {', '.join(tables)}; nothing was changed"
        )


def _counters(connection: Connection) -> dict[str, int]:
    """The highest id each table ever had; SQLite keeps it with the table, so a rebuilt one starts anew."""
    if not connection.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'")):
        return {}
    return {row.name: row.seq for row in connection.execute(text("SELECT name, seq FROM sqlite_sequence"))}


def _restore_counters(connection: Connection, before: dict[str, int]) -> None:
    for name, highest in before.items():
        statement = text("UPDATE sqlite_sequence SET seq = :seq WHERE name = :name AND seq < :seq")
        connection.execute(statement, {"name": name, "seq": highest})
