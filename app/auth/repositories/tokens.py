"""The tokens of mailed links in the database."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import AuthSession, EndReason, OneTimeToken, Purpose, User, UserStatus
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
                *_in_force(User.security_stamp),
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
                *_in_force(user.security_stamp),
            )
            .values(used_at=utcnow())
            .returning(OneTimeToken)
        )
        return (await db.scalars(statement)).one_or_none()

    async def replace(self, *, db: AsyncSession, token: OneTimeToken) -> bool:
        """Store the token and void the older ones of its purpose; False where it would not count.

        It does not where a later one was asked for already, or the session that asked was ended since.

        The account is locked: of two at once each would miss the other.
        """
        same = [OneTimeToken.user_id == token.user_id, OneTimeToken.purpose == token.purpose]
        if await db.scalar(select(OneTimeToken.id).where(*same, OneTimeToken.created_at > token.created_at).limit(1)):
            return False
        if await db.scalar(select(_was_ended(token.session_id))):
            return False
        await db.execute(update(OneTimeToken).where(*same, OneTimeToken.used_at.is_(None)).values(used_at=utcnow()))
        await self.create(db=db, model=token)
        return True

    async def delete_expired(self, *, db: AsyncSession) -> None:
        """Remove what can no longer be used."""
        await db.execute(delete(OneTimeToken).where(OneTimeToken.expires_at <= utcnow()))


def _in_force(security_stamp: Any) -> list[ColumnElement[bool]]:
    """That a token is not used, nor expired, nor asked for before a remedy."""
    return [
        OneTimeToken.used_at.is_(None),
        OneTimeToken.expires_at > utcnow(),
        OneTimeToken.security_stamp == security_stamp,
        ~_was_ended(OneTimeToken.session_id),
    ]


def _was_ended(session_id: Any) -> ColumnElement[bool]:
    """Whether the session that asked for a link was ended as a stranger's; a logout of its own is none of that."""
    return exists().where(AuthSession.id == session_id, AuthSession.revoke_reason != EndReason.LOGOUT)
