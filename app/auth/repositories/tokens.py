"""The tokens of mailed links in the database."""

from collections.abc import Collection

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import OneTimeToken, Purpose, User, UserStatus
from app.core.db import BaseRepository, utcnow


class OneTimeTokenRepository(BaseRepository[OneTimeToken]):
    """Finds, replaces and uses up tokens."""

    async def owner_id(self, *, db: AsyncSession, token_hash: str, purposes: Collection[Purpose]) -> int | None:
        """Whose the token is, if it could be consumed now."""
        statement = (
            select(OneTimeToken.user_id)
            .join(User, User.id == OneTimeToken.user_id)
            .where(
                OneTimeToken.token_hash == token_hash,
                OneTimeToken.purpose.in_(purposes),
                OneTimeToken.used_at.is_(None),
                OneTimeToken.expires_at > utcnow(),
                OneTimeToken.security_stamp == User.security_stamp,
                User.status_id == UserStatus.ACTIVE,
                User.deleted_at.is_(None),
            )
        )
        return (await db.scalars(statement)).one_or_none()

    async def consume(self, *, db: AsyncSession, token_hash: str, user: User) -> OneTimeToken | None:
        """Use up a token of the locked account and give it back; None where it is used or its stamp is not current.

        Of several at once one succeeds.
        """
        statement = (
            update(OneTimeToken)
            .where(
                OneTimeToken.token_hash == token_hash,
                OneTimeToken.user_id == user.id,
                OneTimeToken.used_at.is_(None),
                OneTimeToken.expires_at > utcnow(),
                OneTimeToken.security_stamp == user.security_stamp,
            )
            .values(used_at=utcnow())
            .returning(OneTimeToken)
        )
        return (await db.scalars(statement)).one_or_none()

    async def replace(self, *, db: AsyncSession, token: OneTimeToken) -> bool:
        """Store the token and void the older ones of its purpose; False where a later one was asked for already.

        The account is locked: of two at once each would miss the other.
        """
        same = [OneTimeToken.user_id == token.user_id, OneTimeToken.purpose == token.purpose]
        if await db.scalar(select(OneTimeToken.id).where(*same, OneTimeToken.created_at > token.created_at).limit(1)):
            return False
        await db.execute(update(OneTimeToken).where(*same, OneTimeToken.used_at.is_(None)).values(used_at=utcnow()))
        await self.create(db=db, model=token)
        return True

    async def delete_expired(self, *, db: AsyncSession) -> None:
        """Remove what can no longer be used."""
        await db.execute(delete(OneTimeToken).where(OneTimeToken.expires_at <= utcnow()))
