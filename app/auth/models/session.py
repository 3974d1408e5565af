"""Sessions, and the refresh tokens that carry them on."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db.base import BIGINT, BaseModel, utcnow


class EndReason(StrEnum):
    """Why a session ended before its time."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    TOKEN_REUSED = "token_reused"  # noqa: S105  the name of a reason
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  the name of a reason
    EMAIL_CHANGED = "email_changed"
    ACCOUNT_DISABLED = "account_disabled"
    ACCOUNT_DELETED = "account_deleted"


class AuthSession(BaseModel):
    """One login on one device: the family of its refresh tokens. `expires_at` is absolute."""

    __tablename__ = "auth_sessions"

    user_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("auth_users.id", ondelete="CASCADE"), index=True)
    device: Mapped[str] = mapped_column(String(200))
    address: Mapped[str] = mapped_column(String(64))
    last_used_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoke_reason: Mapped[str | None] = mapped_column(String(32))


class RefreshToken(BaseModel):
    """One refresh token, as a hash. The salt and the presented token make its successor."""

    __tablename__ = "auth_refresh_tokens"

    session_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("auth_sessions.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    salt: Mapped[str] = mapped_column(String(32))
    expires_at: Mapped[datetime]
    rotated_at: Mapped[datetime | None]
