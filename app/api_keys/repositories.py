"""Queries of this module."""

from typing import Any

from sqlalchemy import BindParameter, and_, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys.exceptions import ApiKeyNotFound
from app.api_keys.models import AccessToken, ApiKey
from app.api_keys.security import TOKEN, hash_of, prefix_of
from app.core.db import BaseRepository, db_now

_IS_LIVE = and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_now()))
_NOTES_USE = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= db_now(-60))

# Built once: composing them anew costs a request more than running them. A text is found by its hash: the time that
# takes tells of the hash at most, and of 256 random bits nobody finds the text.
_HASH: BindParameter[str] = bindparam("hash")
_STATE = (ApiKey.id, ApiKey.owner_id, ApiKey.prefix, _IS_LIVE.label("is_live"), _NOTES_USE.label("notes_use"))
_OF_KEY = select(*_STATE, ApiKey.scopes).where(
    ApiKey.prefix == bindparam("prefix"),
    or_(ApiKey.secret_hash == _HASH, and_(ApiKey.previous_hash == _HASH, ApiKey.previous_until > db_now())),
)
_OF_TOKEN = (
    select(*_STATE, AccessToken.scopes)
    .join(AccessToken, AccessToken.api_key_id == ApiKey.id)
    .where(AccessToken.token_hash == _HASH, AccessToken.expires_at > db_now())
)


class ApiKeyRepository(BaseRepository[ApiKey]):
    """Reads and changes keys."""

    not_found = ApiKeyNotFound

    async def find(self, presented: str, *, db: AsyncSession) -> Any | None:
        """Return the state of the key that a key or token proves: one statement, and none for a malformed text."""
        if (prefix := prefix_of(presented)) is None:
            return None
        statement = _OF_TOKEN if prefix == TOKEN else _OF_KEY
        return (await db.execute(statement, {"prefix": prefix, "hash": hash_of(presented)})).one_or_none()

    async def count_live(self, *, db: AsyncSession, owner_id: int) -> int:
        """Count the live keys of an account; no other transaction adds one before this one ends."""
        if db.get_bind().dialect.name == "postgresql":  # SQLite has one writer
            await db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("api_keys.owner_id", owner_id))))
        return len((await db.scalars(select(ApiKey.id).where(ApiKey.owner_id == owner_id, _IS_LIVE))).all())

    async def note_use(self, api_key_id: int, *, db: AsyncSession) -> None:
        """Note that a key was used, at most once a minute."""
        await db.execute(update(ApiKey).where(ApiKey.id == api_key_id, _NOTES_USE).values(last_used_at=db_now()))

    async def revoke_all(self, *, db: AsyncSession, owner_id: int) -> list[int]:
        """Revoke every live key of an account and return their ids."""
        statement = update(ApiKey).where(ApiKey.owner_id == owner_id, _IS_LIVE).values(revoked_at=db_now())
        return list(await db.scalars(statement.returning(ApiKey.id)))
