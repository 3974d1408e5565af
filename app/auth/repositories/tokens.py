"""The tokens of mailed links in the database."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import OneTimeToken, Purpose
from app.core.db import BaseRepository, utcnow


class OneTimeTokenRepository(BaseRepository[OneTimeToken]):
    """Finds and uses up tokens."""

    model = OneTimeToken

    async def owner_id(self, *, db: AsyncSession, token_hash: str, purposes: Collection[Purpose]) -> int | None:
        """Whose the token is, if it could be consumed now."""
        statement = select(OneTimeToken.user_id).where(*self._live(token_hash, purposes))
        return (await db.scalars(statement)).one_or_none()

    async def consume(self, *, db: AsyncSession, token_hash: str, purposes: Collection[Purpose]) -> OneTimeToken | None:
        """Use the token up and give it back; None where it is not in force. Of several at once one succeeds."""
        statement = (
            update(OneTimeToken)
            .where(*self._live(token_hash, purposes))
            .values(used_at=utcnow())
            .returning(OneTimeToken)
        )
        return (await db.scalars(statement)).one_or_none()

    async def void(self, *, db: AsyncSession, user_id: int) -> None:
        """Make every link that was mailed to the user useless."""
        await db.execute(
            update(OneTimeToken)
            .where(OneTimeToken.user_id == user_id, OneTimeToken.used_at.is_(None))
            .values(used_at=utcnow())
        )

    async def delete_expired(self, *, db: AsyncSession) -> None:
        """Remove what can no longer be used."""
        await db.execute(delete(OneTimeToken).where(OneTimeToken.expires_at <= utcnow()))

    def _live(self, token_hash: str, purposes: Collection[Purpose]) -> list[ColumnElement[bool]]:
        return [
            OneTimeToken.token_hash == token_hash,
            OneTimeToken.purpose.in_(purposes),
            OneTimeToken.used_at.is_(None),
            OneTimeToken.expires_at > utcnow(),
        ]
