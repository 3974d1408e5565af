"""Tables, units of work, repositories and list queries."""

from app.core.db.base import BIGINT, BaseModel, SoftDeleteMixin, UtcDateTime, db_now, live_unique, utcnow
from app.core.db.engines import statements_may_take
from app.core.db.integrity import insert_unless_taken, named_violations
from app.core.db.list_params import FilterParam, ListParams, Lookup, PaginatedResult, SortOrder, SortParam
from app.core.db.repository import BaseRepository
from app.core.db.session import (
    Database,
    current_database,
    current_session,
    on_commit,
    session_scope,
    store_with,
)

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
    "db_now",
    "insert_unless_taken",
    "live_unique",
    "named_violations",
    "on_commit",
    "session_scope",
    "statements_may_take",
    "store_with",
    "utcnow",
]
