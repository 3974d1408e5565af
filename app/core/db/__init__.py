"""Tables, units of work, repositories and list queries."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.base import BIGINT, BaseModel, SoftDeleteMixin, UtcDateTime, live_unique, utcnow
from app.core.db.engines import statements_may_take
from app.core.db.integrity import insert_unless_taken, named_violations
from app.core.db.list_params import FilterParam, ListParams, Lookup, PaginatedResult, SortOrder, SortParam
from app.core.db.repository import BaseRepository
from app.core.db.session import Database, current_database, current_session, on_commit, store_with


@asynccontextmanager
async def session_scope(*, read_only: bool = False) -> AsyncIterator[AsyncSession]:
    """A unit of work on the running process's database: commits when the block ends well, rolls back otherwise."""
    async with current_database().session_scope(read_only=read_only) as session:
        yield session


__all__ = [
    "BIGINT",
    "BaseModel",
    "BaseRepository",
    "Database",
    "FilterParam",
    "ListParams",
    "Lookup",
    "PaginatedResult",
    "SoftDeleteMixin",
    "SortOrder",
    "SortParam",
    "UtcDateTime",
    "current_database",
    "current_session",
    "insert_unless_taken",
    "live_unique",
    "named_violations",
    "on_commit",
    "session_scope",
    "statements_may_take",
    "store_with",
    "utcnow",
]
