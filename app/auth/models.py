"""Tables of accounts, sessions and tokens."""

from datetime import datetime
from enum import IntEnum
from typing import Literal, TypeAlias

from sqlalchemy import ForeignKey, Index, Integer, SmallInteger, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BIGINT, BaseModel, SoftDeleteMixin, db_now, live_unique


class UserStatus(IntEnum):
    """Status of an account."""

    ACTIVE = 1
    DISABLED = 2


class User(SoftDeleteMixin, BaseModel):
    """An account. The `_key` columns decide what is the same address or name; the others keep its spelling.

    `security_stamp` is raised by whatever takes authority away. A link or a queued task that was asked for under
    another stamp is void. `password_change_required` is set while the password is one that was generated. At
    `verify_until` an account that registered itself is deleted, unless its address is verified. `is_superuser` says who
    has the role `admin`, for processes of the version before, which knows no roles.
    An erased account has an empty `password_hash`.
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
    password_change_required: Mapped[bool] = mapped_column(default=False, server_default=false())
    verify_until: Mapped[datetime | None]


ADMIN = "admin"
"""The role that holds every permission; its rows in `auth_role_permissions` are none."""
MEMBER = "member"
"""The role of every new account."""


class Role(BaseModel):
    """A named set of permissions."""

    __tablename__ = "auth_roles"

    name: Mapped[str] = mapped_column(String(32), unique=True)
    description: Mapped[str] = mapped_column(String(200), default="")


class PermissionRow(BaseModel):
    """A permission that a module declares, or did: then it counts for nothing until it is declared again."""

    __tablename__ = "auth_permissions"

    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(String(200))
    is_declared: Mapped[bool] = mapped_column(default=True)


class RolePermission(BaseModel):
    """A permission that a role holds."""

    __tablename__ = "auth_role_permissions"
    __table_args__ = (UniqueConstraint("role_id", "permission"),)

    role_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("auth_roles.id", ondelete="CASCADE"))
    permission: Mapped[str] = mapped_column(String(64))


class UserRole(BaseModel):
    """A role that an account has, and the account that granted it."""

    __tablename__ = "auth_user_roles"
    __table_args__ = (UniqueConstraint("user_id", "role_id"),)

    user_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("auth_users.id", ondelete="CASCADE"))
    role_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("auth_roles.id", ondelete="CASCADE"), index=True)
    granted_by_id: Mapped[int | None] = mapped_column(BIGINT)


EndReason: TypeAlias = Literal[
    "logout",
    "revoked",
    "too_many",
    "token_reused",
    "password_changed",
    "email_changed",
    "account_disabled",
    "account_deleted",
]
"""Reason for which a session ended early."""

_UNREVOKED = text("revoked_at IS NULL")


class AuthSession(BaseModel):
    """One login on one device: the family of its refresh tokens.

    `expires_at` is absolute. `scope` names the permissions that its tokens are narrowed to, with spaces between them.
    """

    __tablename__ = "auth_sessions"
    __table_args__ = (
        Index("ix_auth_sessions_user_id_id", "user_id", "id"),
        Index("ix_auth_sessions_unrevoked", "user_id", sqlite_where=_UNREVOKED, postgresql_where=_UNREVOKED),
    )

    user_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("auth_users.id", ondelete="CASCADE"))
    device: Mapped[str] = mapped_column(String(200))
    address: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=db_now(), sort_order=100)
    last_used_at: Mapped[datetime] = mapped_column(default=db_now())
    expires_at: Mapped[datetime]
    scope: Mapped[str | None] = mapped_column(Text)
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


Purpose: TypeAlias = Literal["reset_password", "verify_email", "change_email"]
"""Purpose of a mailed link; its token does nothing else."""


class OneTimeToken(BaseModel):
    """The token of one mailed link, as a hash, bound to the address it was sent to.

    `created_at` is when the link was asked for, by the database's clock, `security_stamp` the account's at that moment,
    `session_id` the session that asked, if one did.
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
