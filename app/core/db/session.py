"""Engine, sessions and units of work.

A unit of work is one session that commits when its block ends well and rolls back otherwise.
GET and HEAD requests get a read-only unit, everything else a writing one. On SQLite a writing
unit begins IMMEDIATE: the default loses updates silently, and a deferred transaction that
upgrades fails at once with 'database is locked'.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Self, TypeAlias

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from app.core.db.engines import READ_ONLY, create_engine
from app.core.db.integrity import named_violations
from app.core.process import Slot

_current: ContextVar[AsyncSession | None] = ContextVar("current_unit", default=None)

_ON_COMMIT = "kit_on_commit"
_LATE_WRITES = "kit_late_writes"
_ENDED = "kit_ended"

Callback: TypeAlias = Callable[[], None]


def current_session() -> AsyncSession | None:
    """Return the session of the unit of work this code runs in, if any."""
    session = _current.get()
    # A task inherits the unit it was started in, and may outlive it.
    return None if session is None or session.info.get(_ENDED) else session


def is_read_only(session: AsyncSession) -> bool:
    """True if the unit of work may only read."""
    return bool(session.info.get(READ_ONLY))


class UnitSession(Session):
    """The synchronous half of our sessions; carries the commit hooks."""


class Database:
    """One engine and the sessions it hands out.

    With `bind`, a connection, every commit is a savepoint on it: for tests that roll back.
    """

    def __init__(self, engine: AsyncEngine, bind: AsyncConnection | None = None) -> None:
        self.engine = engine
        options: dict[str, Any] = {
            "sync_session_class": UnitSession,
            "expire_on_commit": False,
            # A session used after its unit ended is a bug; by default it would silently reconnect.
            "close_resets_only": False,
        }
        if bind is not None:
            options["join_transaction_mode"] = "create_savepoint"
            self._write = self._read = async_sessionmaker(bind, **options)
        else:
            self._write = async_sessionmaker(engine, **options)
            reading = engine.execution_options(**{READ_ONLY: True}, postgresql_readonly=True)
            self._read = async_sessionmaker(reading, **options)

    @classmethod
    def connect(cls, url: URL, **options: Any) -> Self:
        """Prepare an engine, with the options of `create_engine`; the first statement opens a connection."""
        return cls(create_engine(url, **options))

    def session(self, *, read_only: bool = False) -> AsyncSession:
        """A session that is not the current unit of work; whoever takes it commits and closes it."""
        session: AsyncSession = (self._read if read_only else self._write)()
        session.info[READ_ONLY] = read_only
        return session

    @asynccontextmanager
    async def session_scope(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """A unit of work of its own: commits when the block ends well, rolls back otherwise."""
        session = self.session(read_only=read_only)
        outer = _current.get()
        _current.set(session)
        try:
            yield session
            with named_violations():
                await _commit(session)
        except BaseException:
            await session.rollback()
            raise
        finally:
            session.info[_ENDED] = True
            # Not reset(token), which fails where a generator that was left half way is closed in another context.
            _current.set(outer)
            await session.close()
        if writes := session.info.pop(_LATE_WRITES, None):
            async with self.session_scope() as late:
                for write in writes:
                    await write(late)

    async def close(self) -> None:
        """Close every pooled connection."""
        await self.engine.dispose()


def store_with(session: AsyncSession, row: object, on_stored: Callback) -> None:
    """Add `row` to the caller's transaction and call `on_stored` after it has committed.

    A read-only unit cannot write: its rows get a short transaction of their own when it has ended well.
    """
    if is_read_only(session):

        async def store(late: AsyncSession) -> None:
            store_with(late, row, on_stored)

        write_late(session, store)
    else:
        session.add(row)
        on_commit(session, on_stored)


def write_late(session: AsyncSession, write: Callable[[AsyncSession], Awaitable[object]]) -> None:
    """Call `write` with a writing unit of its own after the read-only `session` has ended well."""
    session.info.setdefault(_LATE_WRITES, []).append(write)


def on_commit(session: AsyncSession, callback: Callback) -> None:
    """Call `callback` once the surrounding transaction has committed; never if it (or its savepoint) rolls back.

    The callback runs inside SQLAlchemy's commit: it may set a flag or schedule a task, and must not do I/O.
    """
    sync = session.sync_session
    within = sync.get_nested_transaction() or sync.get_transaction()
    session.info.setdefault(_ON_COMMIT, []).append((within, callback))


async def _commit(session: AsyncSession) -> None:
    """Commit, and again while the hooks of a commit, or a task beside it, have added to the unit."""
    # A read unit commits too: psycopg drops its prepared statements on an explicit ROLLBACK.
    await session.commit()
    while session.new or session.info.get(_ON_COMMIT):
        await session.commit()


@event.listens_for(UnitSession, "after_commit")
def _run_callbacks(session: Session) -> None:
    if session.in_nested_transaction():
        return  # the release of a savepoint is no commit
    for _, callback in session.info.pop(_ON_COMMIT, ()):
        callback()


@event.listens_for(UnitSession, "after_soft_rollback")
def _drop_callbacks(session: Session, previous: SessionTransaction) -> None:
    if waiting := session.info.get(_ON_COMMIT):
        session.info[_ON_COMMIT] = [
            (within, callback) for within, callback in waiting if not _is_inside(within, previous)
        ]


def _is_inside(within: SessionTransaction | None, rolled_back: SessionTransaction) -> bool:
    if not rolled_back.nested:
        return True
    while within is not None:
        if within is rolled_back:
            return True
        within = within.parent
    return False


current_database = Slot[Database]()
"""The database of this process."""


@asynccontextmanager
async def session_scope(*, read_only: bool = False) -> AsyncIterator[AsyncSession]:
    """A unit of work outside a request: commits when the block ends well, rolls back otherwise."""
    async with current_database().session_scope(read_only=read_only) as session:
        yield session
