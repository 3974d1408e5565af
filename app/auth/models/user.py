"""Accounts."""

from enum import IntEnum

from sqlalchemy import Integer, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db.base import BaseModel, SoftDeleteMixin, live_unique


class UserStatus(IntEnum):
    """Whether an account may be used."""

    ACTIVE = 1
    DISABLED = 2


class User(SoftDeleteMixin, BaseModel):
    """An account. The `_key` columns decide what is the same address or name; the others keep its spelling.

    `security_stamp` is raised by whatever takes authority away. A link or a queued task that was asked for under
    another stamp is void.
    """

    __tablename__ = "auth_users"
    __table_args__ = (
        live_unique("uq_auth_users_email_key", "email_key"),
        live_unique("uq_auth_users_username_key", "username_key"),
    )

    email: Mapped[str] = mapped_column(String(254))
    email_key: Mapped[str] = mapped_column(String(320))
    username: Mapped[str] = mapped_column(String(32))
    username_key: Mapped[str] = mapped_column(String(32))
    password_hash: Mapped[str] = mapped_column(String(255))
    status_id: Mapped[int] = mapped_column(SmallInteger, default=UserStatus.ACTIVE)
    is_verified: Mapped[bool] = mapped_column(default=False)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    security_stamp: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
