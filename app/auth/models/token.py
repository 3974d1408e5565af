"""Tokens of mailed links."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db.base import BIGINT, BaseModel


class Purpose(StrEnum):
    """What a link is for; its token does nothing else."""

    RESET_PASSWORD = "reset_password"  # noqa: S105  the name of a purpose
    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"


class OneTimeToken(BaseModel):
    """The token of one mailed link, as a hash, bound to the address it was sent to."""

    __tablename__ = "auth_one_time_tokens"

    user_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("auth_users.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[str] = mapped_column(String(32))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
