"""Tokens of mailed links."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db.base import BIGINT, BaseModel


class Purpose(StrEnum):
    """What a link is for; its token does nothing else."""

    RESET_PASSWORD = "reset_password"  # noqa: S105  the name of a purpose
    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"


class OneTimeToken(BaseModel):
    """The token of one mailed link, as a hash, bound to the address it was sent to.

    `created_at` is when the link was asked for, `security_stamp` the account's at that moment, `session_id` the
    session that asked, if one did.
    """

    __tablename__ = "auth_one_time_tokens"

    user_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("auth_users.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[str] = mapped_column(String(32))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    security_stamp: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    session_id: Mapped[int | None] = mapped_column(BIGINT)
