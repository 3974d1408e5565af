"""The identity of an installation, kept in its database, so that services on one Redis keep apart."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import Select, String, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db.base import BaseModel
from app.core.db.integrity import insert_unless_taken
from app.core.db.session import Database
from app.core.process import Slot

ONLY_ROW = 1


class Installation(BaseModel):
    """One row: made once by the process that needs it first, the same for all on this database."""

    __tablename__ = "core_installation"

    identity: Mapped[str] = mapped_column(String(32))


IDENTITY = select(Installation.identity).where(Installation.id == ONLY_ROW)


async def identity_of(database: Database) -> str:
    """Return the identity of the installation, made by the first process that asks."""
    async with database.session_scope(read_only=True) as session:
        found = await session.scalar(IDENTITY)
    if found is None:
        async with database.session_scope() as session:
            values = {"id": ONLY_ROW, "identity": token_hex(4)}
            await insert_unless_taken(session, Installation, values, unique=("id",))
            found = (await session.scalars(IDENTITY)).one()
    return found


def owner_key(prefix: str) -> str:
    """Return the Redis key that names the installation that last started under `prefix`."""
    return f"{prefix}owner"


async def other_owner(redis: Redis, prefix: str, database: Database) -> str | None:
    """Claim `prefix` for this installation; return the identity of another that had claimed it."""
    ours = await identity_of(database)
    before = await redis.getset(owner_key(prefix), ours)
    owner = before.decode("utf-8", "replace") if isinstance(before, bytes) else before
    return None if owner == ours else owner


@dataclass(frozen=True)
class KnownRevisions:
    """One timeline as this code has it: revisions, heads, and the query for what the database has."""

    revisions: frozenset[str]
    heads: frozenset[str]
    applied: Select[str]


expected_revisions = Slot[Callable[[], tuple[KnownRevisions, ...]]]()
"""Gives the revisions that the code of this process expects the database to have."""


class KeyPrefix:
    """Prefix of every Redis key: the setting, or the identity of the installation, read once.

    Without the database nobody can say where the keys lie, so Redis counts as away until it answers.
    """

    def __init__(self, setting: str | None, database: Callable[[], Database]) -> None:
        self.known = setting
        self._database = database
        self._reading: asyncio.Task[str] | None = None

    async def get(self) -> str:
        """Return the prefix; a Redis error while the database does not answer. Concurrent callers share one query."""
        if self.known is None:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
                self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen
            self.known = await asyncio.shield(self._reading)
        return self.known

    async def _read(self) -> str:
        try:
            return f"kit:{await identity_of(self._database())}:"
        except (SQLAlchemyError, OSError) as exc:
            raise RedisConnectionError("the prefix of the keys is in the database, which does not answer") from exc


current_key_prefix = Slot[KeyPrefix]()
"""The prefix of the Redis keys of this process."""
current_redis = Slot[Redis | None]()
"""The Redis of limits and health checks; None where everything is in process."""
