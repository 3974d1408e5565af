"""Queries of this module."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Executable, and_, bindparam, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.api_keys.exceptions import ApiKeyNotFound
from app.api_keys.models import AccessToken, ApiKey
from app.core.db import BaseRepository, db_now

USE_NOTED_FOR, REFUSAL_NOTED_FOR = 60, 60 * 60
"""Seconds for which the use of a key, and the refusal of one that has ended, is not noted again."""


def _is_older(column: InstrumentedAttribute[datetime | None], seconds: int) -> ColumnElement[bool]:
    return or_(column.is_(None), column <= db_now(-seconds))


_IS_LIVE = and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_now()))
_STATE = (
    *(ApiKey.id, ApiKey.owner_id, ApiKey.prefix, _IS_LIVE.label("is_live")),
    _is_older(ApiKey.last_used_at, USE_NOTED_FOR).label("notes_use"),
    _is_older(ApiKey.last_refused_at, REFUSAL_NOTED_FOR).label("notes_refusal"),
)

# Built once: composing them anew costs a request more than running them.
BY_PREFIX = select(
    *(*_STATE, ApiKey.scopes, ApiKey.secret_hash, ApiKey.previous_hash),
    (ApiKey.previous_until > db_now()).label("overlaps"),
).where(ApiKey.prefix == bindparam("prefix"))
BY_TOKEN = (
    select(*_STATE, AccessToken.scopes)
    .join(AccessToken, AccessToken.api_key_id == ApiKey.id)
    .where(AccessToken.token_hash == bindparam("hash"), AccessToken.expires_at > db_now())
)


class ApiKeyRepository(BaseRepository[ApiKey]):
    """Reads and changes keys."""

    not_found = ApiKeyNotFound

    async def find(self, statement: Executable = BY_PREFIX, *, db: AsyncSession, **values: str) -> Any | None:
        """Return the state of a key by `prefix`, or BY_TOKEN by `hash`: no entity, as every request runs it."""
        return (await db.execute(statement, values)).one_or_none()

    async def count_live(self, *, db: AsyncSession, owner_id: int) -> int:
        """Count the live keys of an account; no other transaction adds one before this one ends."""
        if db.get_bind().dialect.name == "postgresql":  # SQLite has one writer
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended('api_keys_keys.owner_id', :owner_id))")
            await db.execute(lock, {"owner_id": owner_id})
        return len((await db.scalars(select(ApiKey.id).where(ApiKey.owner_id == owner_id, _IS_LIVE))).all())

    async def note(
        self, column: InstrumentedAttribute[datetime | None], seconds: int, *, db: AsyncSession, api_key_id: int
    ) -> bool:
        """Set `column` to now; return False where it was set in the last `seconds`."""
        statement = update(ApiKey).where(ApiKey.id == api_key_id, _is_older(column, seconds))
        return await db.scalar(statement.values({column: db_now()}).returning(ApiKey.id)) is not None

    async def revoke_all(self, *, db: AsyncSession, owner_id: int) -> list[int]:
        """Revoke every live key of an account and return their ids."""
        statement = update(ApiKey).where(ApiKey.owner_id == owner_id, _IS_LIVE).values(revoked_at=db_now())
        return list(await db.scalars(statement.returning(ApiKey.id)))
