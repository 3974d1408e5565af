"""Run Alembic on each database: locks, transactions, and SQLite's traps. `migrations/env.py` calls `run`."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from alembic import context
from alembic.script import ScriptDirectory
from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

from app.core.configs import app_config, make_private
from app.core.db.engines import begin_sqlite, driver_options, make_private_file, prepare_sqlite
from app.core.migrations import dialects  # noqa: F401  registers itself with Alembic
from app.core.migrations.timelines import SHARED, MigrationError, Timeline, Timelines, installed_timelines
from app.core.process import lifecycle

_LOCK_KEY = 7_305_882_411  # any number that nothing else on this database locks
_LOCK = text(
    f"SELECT pg_try_advisory_xact_lock({_LOCK_KEY}), set_config('idle_in_transaction_session_timeout', '0', true)"
)
_LOOK_SECONDS = 0.5
_WAIT_SECONDS = 3600
_RETRY_SECONDS = 600
_MAX_PAUSE_SECONDS = 10
# Transactions that may hold the lock: they began before the wait, and lock a table that the statement names.
_BLOCKERS = text("""
SELECT DISTINCT ON (pid) pid, COALESCE(NULLIF(application_name, ''), usename, backend_type) AS who, relname AS holds,
       CAST(EXTRACT(epoch FROM clock_timestamp() - xact_start) AS integer) AS seconds
  FROM pg_locks JOIN pg_class ON pg_class.oid = relation JOIN pg_stat_activity USING (pid)
 WHERE granted AND datname = current_database() AND position(relname IN :statement) > 0
   AND xact_start <= clock_timestamp() - make_interval(secs => :waited)
 LIMIT 5
""")
_COMMITTED = "kit_committed"

logger = logging.getLogger(__name__)
Comparing = Callable[[Timelines, Timeline, Connection, ScriptDirectory], dict[str, Any]]


def run(comparing: Comparing | None) -> None:
    """Run the Alembic command on the timeline and the database that the caller names.

    The `alembic` command names neither: it works on the shared timeline, at `-x url=` or the database of the settings.
    `comparing` returns the options of autogenerate, which is a developer tool.
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
        _run(connection, options, asked.get("applied", []), asked.get("on_version_apply", lambda **_: None))


def _run(connection: Connection, options: dict[str, Any], applied: list[str], hook: Callable[..., None]) -> None:
    """Run the migrations, and record in `applied` which are done.

    Roll back and retry after a lock timeout: a migration that waits for a lock blocks everyone who comes later.
    """

    def note(*, step: Any, **more: Any) -> None:
        applied.extend(step.up_revision_ids)
        hook(step=step, **more)

    options = {**options, "on_version_apply": note}
    give_up = time.monotonic() + _RETRY_SECONDS
    for pause in count(1):
        applied.clear()
        connection.info.pop(_COMMITTED, None)
        context.configure(connection=connection, **options)
        try:
            with context.begin_transaction(), _checked(connection), quiet():
                context.run_migrations()
        except OperationalError as exc:
            refused = isinstance(exc.orig, (LockNotAvailable, DeadlockDetected))
            if not refused or connection.info.get(_COMMITTED) or time.monotonic() > give_up:
                raise
            if pause == 1:
                _tell_blockers(connection, exc)
            _pause(min(pause, _MAX_PAUSE_SECONDS))
        else:
            return


def _pause(seconds: float) -> None:
    """Wait between two tries; MigrationError in a server that is told to stop, which waits for its threads."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if lifecycle.grace_ends is not None:
            raise MigrationError("told to stop before the database could be migrated")
        time.sleep(min(seconds, _LOOK_SECONDS))


def _tell_blockers(connection: Connection, exc: OperationalError) -> None:
    values = {"statement": exc.statement, "waited": app_config.MIGRATE_LOCK_TIMEOUT_SECONDS}
    found = [
        f"{row.who} (pid {row.pid}, {row.holds} for {row.seconds} s)" for row in connection.execute(_BLOCKERS, values)
    ]
    connection.rollback()
    who = ", ".join(found) or "a transaction that has ended by now"
    logger.warning("A table is in use by %s. Trying again for up to %d s.", who, _RETRY_SECONDS)


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
    """Open a connection to migrate with; no other process migrates this database meanwhile."""
    engine = _engine(sync_url(url))
    # On SQLite the BEGIN IMMEDIATE of each timeline's transaction is the lock.
    alone = nullcontext() if engine.dialect.name == "sqlite" else _alone(engine)
    with alone, engine.connect() as connection:
        yield connection


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Hold the migration lock, in a transaction of its own: a session lock could be left behind in a pooler.

    Poll for it: a statement that waits for the lock would hold a snapshot, and CREATE INDEX CONCURRENTLY would wait for
    that. The idle transaction has none.
    """
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        if not connection.scalar(_LOCK):
            logger.warning("Another process is migrating this database. Waiting for it.")
            connection.rollback()
            while not connection.scalar(_LOCK):
                connection.rollback()
                _pause(_LOOK_SECONDS)
        try:
            yield
        finally:
            try:
                connection.rollback()
            except OperationalError:
                logger.warning("The lock of this migration was lost before its end: another may have run beside it.")


def _bound_locks(connection: Connection) -> None:
    """Set `lock_timeout` for the transaction, unless a revision has committed by itself: it cannot be run again."""
    driver: Any = connection.connection.driver_connection
    if driver.autocommit:
        connection.info[_COMMITTED] = True
    elif not connection.info.get(_COMMITTED):
        milliseconds = app_config.MIGRATE_LOCK_TIMEOUT_SECONDS * 1000
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds:.0f}")


def _begin_in_turn(connection: Connection) -> None:
    """Begin on SQLite; log if another process has to finish first."""
    connection.exec_driver_sql("PRAGMA busy_timeout=1000")
    give_up = time.monotonic() + _WAIT_SECONDS
    for attempt in count(1):
        try:
            begin_sqlite(connection)
        except OperationalError as exc:
            if not str(exc.orig).endswith("is locked") or time.monotonic() > give_up:
                raise
            if attempt == 1:
                logger.warning("Another process is writing to this database. Waiting for it.")
            _pause(_LOOK_SECONDS)
        else:
            return


@contextmanager
def reading(url: URL) -> Iterator[Connection]:
    """Open a read-only connection: it waits for no migration and creates no SQLite file."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        url = url.set(database=":memory:")
    with _engine(sync_url(url)).connect().execution_options(kit_read_only=True) as connection:
        yield connection


def sync_url(url: URL) -> URL:
    """Return the URL with a synchronous driver: migrations then need no event loop, and work inside a running one."""
    return url.set(drivername="sqlite") if url.get_backend_name() == "sqlite" else url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        options = {"application_name": "kit migrate", **driver_options(url, app_config.DB_PREPARED_STATEMENTS)}
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=options)
        event.listen(engine, "begin", _bound_locks)
        return engine
    make_private(Path(url.database or ".").parent)
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "do_connect", make_private_file)
    event.listen(engine, "connect", prepare_sqlite)
    event.listen(engine, "connect", _without_foreign_keys)
    event.listen(engine, "begin", _begin_in_turn)
    return engine


def _without_foreign_keys(connection: Any, _record: Any) -> None:
    # A batch alter drops the old table: with foreign keys on that empties its cascading children.
    # The switch does nothing inside a transaction, so it comes before BEGIN.
    connection.execute("PRAGMA foreign_keys=OFF")


@contextmanager
def _checked(connection: Connection) -> Iterator[None]:
    """On SQLite, keep the id counters of rebuilt tables, and refuse to commit references to missing rows."""
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
    """Return the highest id each table ever had. SQLite drops it with the old table of a rebuild."""
    if not connection.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'")):
        return {}
    return {row.name: row.seq for row in connection.execute(text("SELECT name, seq FROM sqlite_sequence"))}


def _restore_counters(connection: Connection, before: dict[str, int]) -> None:
    for name, highest in before.items():
        statement = text("UPDATE sqlite_sequence SET seq = :seq WHERE name = :name AND seq < :seq")
        connection.execute(statement, {"name": name, "seq": highest})
