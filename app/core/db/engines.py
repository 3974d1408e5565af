"""Engines for both databases: bounds on every wait for PostgreSQL, our own transactions for SQLite."""

import asyncio
import os
import select
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection

from app.core.db.base import sqlite_statement_timestamp
from app.core.metrics import pool_waits

READ_ONLY = "kit_read_only"

SQLITE_BUSY_SECONDS = 15
IDLE_SECONDS = 30.0
PING_SECONDS = 1.0
CANCEL_SECONDS = 1.0

# To detect a peer that has vanished; values in the URL take precedence.
_TCP = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# For the server: by default it keeps the locks of a vanished client for two hours.
_SERVER_TCP = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_IDLE_SINCE = "kit_idle_since"

_statement_seconds: ContextVar[float | None] = ContextVar("statement_seconds")


class MeasuredPool(AsyncAdaptedQueuePool):
    """A pool that measures how long callers wait while all of its connections are in use."""

    __module__ = AsyncAdaptedQueuePool.__module__  # names its logger, which SQLAlchemy keeps quiet

    def connect(self) -> PoolProxiedConnection:
        """Return a connection."""
        if self.checkedout() < self.size():
            return super().connect()
        with pool_waits.time():
            return super().connect()


@contextmanager
def statements_may_take(seconds: float | None) -> Iterator[None]:
    """Bound each PostgreSQL statement of the block by `seconds`, not by `DB_STATEMENT_TIMEOUT_SECONDS`.

    None lifts the bound. A task has its own `timeout` instead, a migration none.
    """
    token = _statement_seconds.set(seconds)
    try:
        yield
    finally:
        _statement_seconds.reset(token)


def create_engine(
    url: URL,
    *,
    pool_size: int = 10,
    pool_timeout: float = 3.0,
    statement_timeout: float = 10.0,
    idle_transaction_timeout: float = 0,
    idle_seconds: float = IDLE_SECONDS,
    prepared_statements: bool = True,
    echo: bool = False,
) -> AsyncEngine:
    """Make an engine; it connects at its first use.

    On PostgreSQL a statement may take `statement_timeout` seconds (0: no bound), a connection that was idle for
    `idle_seconds` is pinged before it is used again, and `pool_timeout` bounds the wait for one. The server ends a
    transaction in which nothing happens for `idle_transaction_timeout` seconds (0: as it is configured). Without
    `prepared_statements` no session state outlives a transaction, as poolers in transaction mode require.
    """
    # Overflow connections are opened and closed under load; a fixed pool measured 15 to 25 % faster.
    options: dict[str, Any] = {"echo": echo, "pool_size": pool_size, "max_overflow": 0, "hide_parameters": True}
    options["poolclass"] = MeasuredPool
    if url.get_backend_name() != "sqlite":
        session = dict(_SERVER_TCP) if prepared_statements else {}
        if session and idle_transaction_timeout:
            session["idle_in_transaction_session_timeout"] = f"{idle_transaction_timeout * 1000:.0f}"
        connect = partial(BoundedConnection.connect_bounded, statement_timeout or None, session)
        arguments = {**driver_options(url, prepared_statements), "async_creator_fn": connect}
        engine = create_async_engine(
            url, **options, pool_timeout=pool_timeout, pool_recycle=1800, connect_args=arguments
        )
        event.listen(engine.sync_engine, "checkin", _note_idle)
        event.listen(engine.sync_engine, "checkout", partial(_check_alive, engine, idle_seconds))
        return engine
    # As long as SQLite makes a writer wait: behind one that is busy the others hold the connections.
    engine = create_async_engine(url, **options, pool_timeout=SQLITE_BUSY_SECONDS)
    event.listen(engine.sync_engine, "do_connect", make_private_file)
    event.listen(engine.sync_engine, "connect", prepare_sqlite)
    event.listen(engine.sync_engine, "begin", begin_sqlite)
    event.listen(engine.sync_engine, "invalidate", _release_sqlite)
    return engine


def driver_options(url: URL, prepared_statements: bool) -> Mapping[str, Any]:
    """Return options of psycopg that detect a vanished server, unless `url` sets them."""
    options = {name: value for name, value in _TCP.items() if name not in url.query}
    return options if prepared_statements else {**options, "prepare_threshold": None}


class BoundedConnection(psycopg.AsyncConnection[Any]):
    """A connection with a timeout for every wait for the server, measured by the client.

    The `statement_timeout` of the server does not help if the answer is lost on the network. Behind PgBouncer it can
    neither be a start-up parameter nor be set beyond a transaction.
    """

    _seconds: float | None = None

    @classmethod
    async def connect_bounded(
        cls, seconds: float | None, session: Mapping[str, str], *args: Any, **options: Any
    ) -> "BoundedConnection":
        """Connect and apply `session` at the server; statements may take `seconds` by default."""
        connection = await cls.connect(*args, **options)
        connection._seconds = seconds
        if session:
            # Not as start-up parameters: PgBouncer refuses a connection with one that it does not know.
            values = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in session.items())
            try:
                await connection.set_autocommit(True)
                with statements_may_take(_TCP["connect_timeout"]):
                    await connection.execute(f"SELECT {values}".encode())
                await connection.set_autocommit(False)
            except BaseException:
                connection.pgconn.finish()
                raise
        return connection

    async def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Wait as psycopg does, but only for as long as the statement may take."""
        bound = _statement_seconds.get(self._seconds) if timeout is None else timeout
        try:
            return await super().wait(gen, interval, bound)
        except psycopg.errors._WaitTimeout as exc:
            if timeout is not None:
                raise
            await self._stop(gen, interval)
            raise psycopg.OperationalError(f"no answer within {bound:g} s") from exc

    async def _stop(self, gen: PQGen[Any], interval: float) -> None:
        """Cancel the statement; close the connection if the server does not react."""
        try:
            await self.cancel_safe(timeout=CANCEL_SECONDS)
            await super().wait(gen, interval, CANCEL_SECONDS)
        except psycopg.errors.QueryCanceled:
            return
        except psycopg.Error:
            self.pgconn.finish()
        except BaseException:
            self.pgconn.finish()
            raise


def _note_idle(_connection: Any, record: Any) -> None:
    record.info[_IDLE_SINCE] = time.monotonic()


def _check_alive(engine: AsyncEngine, idle_seconds: float, connection: Any, record: Any, _proxy: Any) -> None:
    """Replace a dead connection of the pool before a request gets it.

    The socket of a closed connection has an end of file to read, which takes no round trip to see. A vanished server
    only shows by a ping, which is sent after a long idle time only.
    """
    idle_since = record.info.pop(_IDLE_SINCE, None)
    if idle_since is None:
        return
    driver = connection.driver_connection
    poll = select.poll()
    poll.register(driver.pgconn.socket, select.POLLIN)
    try:
        while poll.poll(0):
            driver.pgconn.consume_input()  # notices that arrived while it was idle; raises at the end of file
        if time.monotonic() - idle_since >= idle_seconds:
            with statements_may_take(PING_SECONDS):
                engine.dialect.do_ping(connection)
    except psycopg.Error as exc:
        raise InvalidatePoolError("the server has closed the connection, or does not answer") from exc


def make_private_file(_dialect: Any, _record: Any, arguments: Sequence[Any], _options: Any) -> None:
    """Create SQLite's file for its owner alone; `-wal` and `-shm` get its mode. A listener of `do_connect`."""
    if arguments and arguments[0] != ":memory:":
        with suppress(OSError):  # it is there; or SQLite says why it cannot be
            os.close(os.open(arguments[0], os.O_CREAT | os.O_EXCL, 0o600))


def prepare_sqlite(connection: Any, _record: Any) -> None:
    """Set up a new connection to SQLite; a listener of the engine's `connect`."""
    connection.isolation_level = None  # the begin event below owns the transactions
    # Deterministic to SQLite means: the same all through a statement.
    connection.create_function("statement_timestamp", -1, sqlite_statement_timestamp, deterministic=True)
    cursor = connection.cursor()
    # The timeout first: two processes that start together both want the file to switch to WAL.
    for pragma in (
        f"busy_timeout={SQLITE_BUSY_SECONDS * 1000}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _release_sqlite(connection: Any, _record: Any, _error: BaseException | None) -> None:
    """Roll back before a connection is given up, which is what a cancelled statement leads to.

    Closing it does not end its transaction, and with it SQLite's only write lock, while a cursor is still referred to.
    """
    with suppress(asyncio.CancelledError, sqlite3.Error, ValueError):  # a second cancellation; closed already
        connection.run_async(lambda driver: asyncio.shield(driver.rollback()))


def begin_sqlite(connection: Connection) -> None:
    """Begin as the unit needs it; a listener of the engine's `begin`."""
    read_only = bool(connection.get_execution_options().get(READ_ONLY))
    info = connection.connection.info
    if info.get("query_only", False) != read_only:
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        info["query_only"] = read_only
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
