"""Sessions and refresh tokens in the database."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import AuthSession, EndReason, RefreshToken, User
from app.core.db import BaseRepository, utcnow

MAX_LISTED = 100


class Family(NamedTuple):
    """A refresh token with the session it belongs to and the account behind it."""

    token: RefreshToken
    session: AuthSession
    user: User


class SessionRepository(BaseRepository[AuthSession]):
    """Reads and ends logins."""

    async def get_live(self, *, db: AsyncSession, user_id: int) -> Sequence[AuthSession]:
        """The user's sessions in force, the latest used first."""
        statement = (
            self.base_statement()
            .where(AuthSession.user_id == user_id, AuthSession.revoked_at.is_(None), AuthSession.expires_at > utcnow())
            .order_by(AuthSession.last_used_at.desc(), AuthSession.id.desc())
            .limit(MAX_LISTED)
        )
        return (await db.scalars(statement)).all()

    async def revoke(
        self,
        *,
        db: AsyncSession,
        user_id: int,
        reason: EndReason,
        session_id: int | None = None,
        but: int | None = None,
    ) -> int:
        """End the user's live sessions, one of them or all `but` one; how many were ended."""
        now = utcnow()
        statement = (
            update(AuthSession)
            .where(AuthSession.user_id == user_id, AuthSession.revoked_at.is_(None), AuthSession.expires_at > now)
            .values(revoked_at=now, revoke_reason=reason)
            .returning(AuthSession.id)
        )
        if session_id is not None:
            statement = statement.where(AuthSession.id == session_id)
        if but is not None:
            statement = statement.where(AuthSession.id != but)
        return len((await db.scalars(statement)).all())

    async def delete_expired(self, *, db: AsyncSession) -> None:
        """Remove what ended by its time, refresh tokens included; until then they are needed to see a reuse."""
        await db.execute(delete(AuthSession).where(AuthSession.expires_at <= utcnow()))


class RefreshTokenRepository(BaseRepository[RefreshToken]):
    """Finds refresh tokens by their hash."""

    async def lock_family(self, *, db: AsyncSession, token_hash: str) -> Family | None:
        """The token with its session and account. Token and session stay locked until the transaction ends.

        Both, because PostgreSQL re-reads only the rows it locks after waiting for another transaction.
        """
        statement = (
            select(RefreshToken, AuthSession, User)
            .join(AuthSession, AuthSession.id == RefreshToken.session_id)
            .join(User, User.id == AuthSession.user_id)
            .where(RefreshToken.token_hash == token_hash, User.deleted_at.is_(None))
            .with_for_update(of=[RefreshToken, AuthSession])
            .execution_options(populate_existing=True)
        )
        row = (await db.execute(statement)).one_or_none()
        return None if row is None else Family(*row)
