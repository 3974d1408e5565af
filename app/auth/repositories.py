"""Queries of this module."""

import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, bindparam, delete, exists, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.exceptions import EmailTaken, RoleNotFound, UsernameTaken, UserNotFound
from app.auth.models import (
    ADMIN,
    MEMBER,
    AuthSession,
    EndReason,
    OneTimeToken,
    PermissionRow,
    Purpose,
    RefreshToken,
    Role,
    RolePermission,
    User,
    UserRole,
    UserStatus,
)
from app.auth.schemas.role import GrantRead, RoleRead
from app.auth.schemas.user import UserDTO
from app.auth.security.identity import SERVICE_DOMAIN, email_key, is_username, username_key
from app.core.db import BaseRepository, db_now, insert_unless_taken
from app.core.exceptions import UniqueViolation
from app.core.identity import Permission, Principal, current_permissions

REMEDIES = ("email", "password_hash", "status_id", "is_verified", "is_superuser", "deleted_at")
"""The columns whose change takes authority from whoever held it: it raises the security stamp."""

_ROLES = (
    select(func.aggregate_strings(Role.name, " "))
    .join(UserRole, UserRole.role_id == Role.id)
    .where(UserRole.user_id == User.id)
    .scalar_subquery()
)
_GRANTED = (
    select(func.aggregate_strings(RolePermission.permission, " "))
    .join(UserRole, UserRole.role_id == RolePermission.role_id)
    .where(UserRole.user_id == User.id)
    .scalar_subquery()
)
_HAS_ADMIN = exists().where(UserRole.user_id == User.id, UserRole.role_id == Role.id, Role.name == ADMIN)
_IS_ADMIN = User.is_superuser & _HAS_ADMIN
_RIGHTS = {"roles": _ROLES.label("roles"), "permissions": _GRANTED.label("permissions")}
_DTO_COLUMNS: list[Any] = [_RIGHTS.get(name, getattr(User, name, None)) for name in UserDTO.model_fields]

# Built once: composing it anew costs a request more than running it.
_PRINCIPAL = (
    select(*_DTO_COLUMNS, AuthSession.scope, AuthSession.created_at.label("authenticated_at"))
    .join(AuthSession, AuthSession.user_id == User.id)
    .where(
        AuthSession.id == bindparam("session_id"),
        AuthSession.revoked_at.is_(None),
        AuthSession.expires_at > db_now(),
        User.id == bindparam("user_id"),
        User.deleted_at.is_(None),
    )
)


class UserRepository(BaseRepository[User]):
    """Reads and writes accounts; a taken address or name is EmailTaken or UsernameTaken."""

    not_found = UserNotFound

    async def find_by_email(self, *, db: AsyncSession, email: str) -> User | None:
        """Return the account of an address, in any spelling."""
        try:
            return await self.get(db=db, email_key=email_key(email))
        except ValueError:
            return None

    async def find_by_login(self, *, db: AsyncSession, login: str) -> User | None:
        """Return the account that `login` names: an address where it has an @, a user name otherwise."""
        if "@" in login:
            return await self.find_by_email(db=db, email=login)
        return await self.get(db=db, username_key=username_key(login)) if is_username(login) else None

    async def principal(self, *, db: AsyncSession, user_id: int, session_id: int) -> Principal | None:
        """Return the caller of a live session: one statement for all and no entity, as every request runs it."""
        row = (await db.execute(_PRINCIPAL, {"user_id": user_id, "session_id": session_id})).one_or_none()
        if row is None:
            return None
        scope = None if row.scope is None else frozenset(row.scope.split())
        user = _dto(row) if scope is None else _dto(row).within(scope)
        return Principal(
            kind="user",
            id=user_id,
            user=user,
            scope=scope,
            session_id=session_id,
            authenticated_at=row.authenticated_at,
            methods=("pwd",),
        )

    async def get_by_ids(self, *, db: AsyncSession, ids: Sequence[int]) -> list[UserDTO]:
        """Return the accounts that exist among `ids`, ordered by id."""
        statement = self.base_statement().with_only_columns(*_DTO_COLUMNS).where(User.id.in_(set(ids)))
        return [_dto(row) for row in await db.execute(statement.order_by(User.id))]

    async def add(self, *, db: AsyncSession, email: str, username: str, **values: Any) -> User:
        """Store a new account, a member."""
        keys = {"email_key": email_key(email), "username_key": username_key(username)}
        async with _unique(db):
            user = await self.create(db=db, data={"email": email, "username": username, **keys, **values})
        for role in [MEMBER, ADMIN] if user.is_superuser else [MEMBER]:
            await RoleRepository().grant(db=db, user_id=user.id, role=role)
        return user

    async def add_service_account(self, *, db: AsyncSession, username: str) -> User:
        """Store an account that no password and no link opens, in no role; raises UsernameTaken."""
        address = f"{secrets.token_hex(8)}@{SERVICE_DOMAIN}"
        names = {"username": username, "username_key": username_key(username), "email": address, "email_key": address}
        async with _unique(db):
            return await self.create(db=db, data={**names, "password_hash": "", "is_verified": True})

    async def change(self, *, db: AsyncSession, user: User, **values: Any) -> User:
        """Set columns of a locked account, the keys along with address and name; one of REMEDIES raises the stamp.

        `update` raises none: for a hash made anew of the same password, or an address proven by its link.
        """
        if any(values.get(name, getattr(user, name)) != getattr(user, name) for name in REMEDIES):
            values["security_stamp"] = user.security_stamp + 1
        if email := values.get("email"):
            values["email_key"] = email_key(email)
        if username := values.get("username"):
            values["username_key"] = username_key(username)
        if (is_admin := values.get("is_superuser")) is not None:
            move = RoleRepository().grant if is_admin else RoleRepository().revoke
            await move(db=db, user_id=user.id, role=ADMIN)
        async with _unique(db):
            return await self.update(db=db, model=user, data=values)

    async def to_erase(self, *, db: AsyncSession, deleted_before: datetime, limit: int) -> Sequence[int]:
        """Return ids of accounts that were deleted longer ago and are not erased."""
        statement = select(User.id).where(User.deleted_at < deleted_before, User.password_hash != "").limit(limit)
        return (await db.scalars(statement.order_by(User.id))).all()

    async def erase(self, *, db: AsyncSession, user: User) -> None:
        """Take address, name and password from a deleted account."""
        name = f"erased-{user.id}"
        email = f"{name}@invalid"
        data = {"email": email, "email_key": email, "username": name, "username_key": name, "password_hash": ""}
        await self.update(db=db, model=user, data=data)

    async def raise_stamp(self, *, db: AsyncSession, user_id: int) -> None:
        """Void every link of the account, mailed or queued."""
        await db.execute(update(User).where(User.id == user_id).values(security_stamp=User.security_stamp + 1))

    async def lock_overdue(self, *, db: AsyncSession, limit: int = 100) -> Sequence[User]:
        """Return accounts that were not verified in time, locked; not those being verified at this moment.

        A stamp above 0 tells of one that was verified before, or changed by an administrator.
        """
        overdue = User.verify_until <= db_now(), ~User.is_verified, User.security_stamp == 0
        granted = exists().where(UserRole.user_id == User.id, UserRole.granted_by_id.is_not(None))
        statement = self.base_statement().where(*overdue, ~User.is_superuser, ~granted).order_by(User.id).limit(limit)
        return (await db.scalars(statement.with_for_update(skip_locked=True))).all()

    async def lock_admins(self, *, db: AsyncSession) -> None:
        """Lock out other changes of administrators until the transaction ends.

        An advisory lock: it is taken after row locks, and more row locks could deadlock. SQLite has one writer anyway.
        """
        if db.get_bind().dialect.name == "postgresql":
            await db.execute(text("SELECT pg_advisory_xact_lock(hashtext('auth_users.is_superuser'))"))

    async def active_admins(self, *, db: AsyncSession, only_verified: bool) -> Sequence[int]:
        """Return the ids of the users who can administer the service."""
        statement = self.base_statement().where(_IS_ADMIN, User.status_id == UserStatus.ACTIVE)
        statement = statement.where(User.password_hash != "")  # nobody logs in to the account of a machine
        if only_verified:
            statement = statement.where(User.is_verified)
        return (await db.scalars(statement.with_only_columns(User.id))).all()

    async def has_admin(self, *, db: AsyncSession) -> bool:
        """Return whether any account is an administrator's."""
        return bool(await db.scalar(select(self.base_statement().where(_IS_ADMIN).exists())))


def _dto(row: Row[*tuple[Any, ...]]) -> UserDTO:
    """Make the DTO of a row with roles and permissions."""
    declared, roles = current_permissions().keys(), frozenset((row.roles or "").split())
    if not row.is_superuser:  # a process of the version before, which knows no roles, may have revoked it
        roles -= {ADMIN}
    permissions = frozenset(declared if ADMIN in roles else declared & set((row.permissions or "").split()))
    rights = {"roles": roles, "permissions": permissions, "is_superuser": ADMIN in roles}
    return UserDTO.model_validate({**row._mapping, **rights})


class RoleRepository(BaseRepository[Role]):
    """Reads and writes roles, who has them, and the catalogue of permissions."""

    not_found = RoleNotFound

    async def grant(self, *, db: AsyncSession, user_id: int, role: str, granted_by_id: int | None = None) -> bool:
        """Give an account a role that exists; return False where it has it already."""
        role_id = select(Role.id).where(Role.name == role).scalar_subquery()
        values = {"user_id": user_id, "role_id": role_id, "granted_by_id": granted_by_id}
        return bool(await insert_unless_taken(db, UserRole, values, unique=("user_id", "role_id")))

    async def revoke(self, *, db: AsyncSession, user_id: int, role: str) -> bool:
        """Take a role from an account; return False where it does not have it."""
        of_role = select(Role.id).where(Role.name == role).scalar_subquery()
        statement = delete(UserRole).where(UserRole.user_id == user_id, UserRole.role_id == of_role)
        return bool((await db.scalars(statement.returning(UserRole.id))).all())

    async def grants(self, *, db: AsyncSession, user_id: int) -> list[GrantRead]:
        """Return the roles of an account by name."""
        columns = (Role.name, Role.description, UserRole.created_at.label("granted_at"), UserRole.granted_by_id)
        statement = select(*columns).join(UserRole, UserRole.role_id == Role.id).where(UserRole.user_id == user_id)
        return [GrantRead.model_validate(row) for row in await db.execute(statement.order_by(Role.name))]

    async def describe(self, *, db: AsyncSession, **filters: Any) -> list[RoleRead]:
        """Return the roles that fit, by name, with what they hold."""
        held = select(RolePermission.role_id, RolePermission.permission)
        roles = (await db.scalars(self._fitting(filters).order_by(Role.name))).all()
        permissions: dict[int, list[str]] = {role.id: [] for role in roles}
        for role_id, permission in await db.execute(held.where(RolePermission.role_id.in_(permissions))):
            permissions[role_id].append(permission)
        permissions |= {role.id: list(current_permissions()) for role in roles if role.name == ADMIN}
        return [RoleRead(**role.to_dict(), permissions=sorted(permissions[role.id])) for role in roles]

    async def set_permissions(self, *, db: AsyncSession, role_id: int, permissions: Collection[str]) -> None:
        """Have a locked role hold these and no other permissions."""
        of_role = RolePermission.role_id == role_id
        await db.execute(delete(RolePermission).where(of_role, RolePermission.permission.not_in(permissions)))
        held = set(await db.scalars(select(RolePermission.permission).where(of_role)))
        db.add_all(RolePermission(role_id=role_id, permission=name) for name in sorted(set(permissions) - held))
        await db.flush()

    async def catalogue(self, *, db: AsyncSession) -> dict[str, str]:
        """Return the texts of all permissions that any module declares or declared, by name."""
        rows = await db.execute(select(PermissionRow.name, PermissionRow.description))
        return {name: description for name, description in rows}  # noqa: C416  a row is no pair to mypy

    async def declare(self, *, db: AsyncSession, permissions: Collection[Permission]) -> list[str]:
        """Bring the catalogue up to date; return the names in it that no module declares, and that a role holds."""
        known = {row.name: row for row in await db.scalars(select(PermissionRow))}
        for permission in permissions:
            values = {"name": permission.name, "description": permission.text, "is_declared": True}
            row = known.pop(permission.name, None)
            if row is None:
                await insert_unless_taken(db, PermissionRow, values, unique=("name",))
            else:
                row.update(**values)
        for row in known.values():
            row.is_declared = False
        held = select(RolePermission.permission).where(RolePermission.permission.in_(known)).distinct()
        return sorted((await db.scalars(held)).all())


@asynccontextmanager
async def _unique(db: AsyncSession) -> AsyncIterator[None]:
    """Write in a savepoint; raise EmailTaken or UsernameTaken where another account has the address or name."""
    try:
        async with db.begin_nested():
            yield
    except UniqueViolation as exc:
        raise EmailTaken if exc.constraint == "uq_auth_users_email_key" else UsernameTaken from exc


DEVICE_MEMORY = timedelta(days=90)
"""Age up to which a login makes its device known; sessions are kept as long."""

MAX_ORIGINS = 200
MAX_LISTED = 100
_LATEST_USED = (AuthSession.last_used_at.desc(), AuthSession.id.desc())


def _live(user_id: int) -> list[ColumnElement[bool]]:
    """Match the user's sessions that were not ended and have not expired."""
    return [AuthSession.user_id == user_id, AuthSession.revoked_at.is_(None), AuthSession.expires_at > db_now()]


class Family(NamedTuple):
    """A refresh token with the session it belongs to, the account behind it, and when it was asked for."""

    token: RefreshToken
    session: AuthSession
    user: User
    now: datetime


class SessionRepository(BaseRepository[AuthSession]):
    """Reads and ends sessions."""

    async def get_live(self, *, db: AsyncSession, user_id: int, idle_days: int) -> Sequence[AuthSession]:
        """Return the user's live sessions that were used within `idle_days`, the latest used first."""
        recent = AuthSession.last_used_at > db_now(-idle_days * 24 * 3600)
        statement = self.base_statement().where(*_live(user_id), recent).order_by(*_LATEST_USED).limit(MAX_LISTED)
        return (await db.scalars(statement)).all()

    async def get_origins(self, *, db: AsyncSession, user_id: int) -> Sequence[tuple[str, str, str | None]]:
        """Return device, address and reason of the end of the account's latest logins within DEVICE_MEMORY."""
        columns = AuthSession.device, AuthSession.address, AuthSession.revoke_reason
        recent = AuthSession.created_at > db_now(-DEVICE_MEMORY.total_seconds())
        statement = select(*columns).where(AuthSession.user_id == user_id, recent).order_by(AuthSession.id.desc())
        return (await db.execute(statement.limit(MAX_ORIGINS))).all()

    async def is_recent(self, *, db: AsyncSession, session_id: int, within: timedelta) -> bool:
        """Check if the session was opened no longer ago than `within`."""
        recent = AuthSession.created_at > db_now(-within.total_seconds())
        return bool(await db.scalar(select(exists().where(AuthSession.id == session_id, recent))))

    async def revoke(
        self,
        *,
        db: AsyncSession,
        user_id: int,
        reason: EndReason,
        session_id: int | None = None,
        but: int | None = None,
        beyond: int | None = None,
    ) -> Sequence[int]:
        """End the user's live sessions and return their ids.

        One of them, all `but` one, or all beyond so many, the latest used first.
        """
        statement = update(AuthSession).where(*_live(user_id)).values(revoked_at=db_now(), revoke_reason=reason)
        if session_id is not None:
            statement = statement.where(AuthSession.id == session_id)
        if but is not None:
            statement = statement.where(AuthSession.id != but)
        if beyond is not None:
            rest = select(AuthSession.id).where(*_live(user_id)).order_by(*_LATEST_USED).offset(beyond)
            statement = statement.where(AuthSession.id.in_(rest))
        return (await db.scalars(statement.returning(AuthSession.id))).all()

    async def delete_expired(self, *, db: AsyncSession) -> None:
        """Delete expired refresh tokens, which until then are needed to detect reuse, and sessions once forgotten."""
        forgotten = AuthSession.created_at <= db_now(-DEVICE_MEMORY.total_seconds())
        await db.execute(delete(RefreshToken).where(RefreshToken.expires_at <= db_now()))
        await db.execute(delete(AuthSession).where(AuthSession.expires_at <= db_now(), forgotten))


class RefreshTokenRepository(BaseRepository[RefreshToken]):
    """Finds refresh tokens by their hash."""

    async def lock_family(self, *, db: AsyncSession, token_hash: str) -> Family | None:
        """Return the token with its session and account. Token and session stay locked until the transaction ends.

        Both, because PostgreSQL re-reads only the rows it locks after waiting for another transaction.
        """
        statement = (
            select(RefreshToken, AuthSession, User, db_now())
            .join(AuthSession, AuthSession.id == RefreshToken.session_id)
            .join(User, User.id == AuthSession.user_id)
            .where(RefreshToken.token_hash == token_hash, User.deleted_at.is_(None))
            .with_for_update(of=[RefreshToken, AuthSession])
            .execution_options(populate_existing=True)
        )
        row = (await db.execute(statement)).one_or_none()
        return None if row is None else Family(*row)


class OneTimeTokenRepository(BaseRepository[OneTimeToken]):
    """Finds, replaces and uses up tokens."""

    async def owner_id(self, *, db: AsyncSession, token_hash: str, purposes: Collection[Purpose]) -> int | None:
        """Return the id of the token's owner, if the token could be consumed now."""
        wanted = OneTimeToken.token_hash == token_hash, OneTimeToken.purpose.in_(purposes)
        active = User.status_id == UserStatus.ACTIVE, User.deleted_at.is_(None)
        statement = select(User.id).join(OneTimeToken, OneTimeToken.user_id == User.id)
        statement = statement.where(*wanted, *active, *_in_force(User.security_stamp))
        return (await db.scalars(statement)).one_or_none()

    async def consume(self, *, db: AsyncSession, token_hash: str, user: User) -> OneTimeToken | None:
        """Mark a token of the locked account as used and return it; None where it is used or its stamp is not current.

        Of concurrent calls one succeeds.
        """
        own = OneTimeToken.token_hash == token_hash, OneTimeToken.user_id == user.id
        statement = update(OneTimeToken).where(*own, *_in_force(user.security_stamp)).values(used_at=db_now())
        return (await db.scalars(statement.returning(OneTimeToken))).one_or_none()

    async def replace(self, *, db: AsyncSession, token: OneTimeToken) -> bool:
        """Store the token and void the older ones of its purpose.

        Returns False where a later one was asked for already, or the session that asked was ended since. Needs the
        account locked: two at once would miss each other.
        """
        same = [OneTimeToken.user_id == token.user_id, OneTimeToken.purpose == token.purpose]
        if await db.scalar(select(OneTimeToken.id).where(*same, OneTimeToken.created_at > token.created_at).limit(1)):
            return False
        if await db.scalar(select(_was_ended(token.session_id))):
            return False
        await db.execute(update(OneTimeToken).where(*same, OneTimeToken.used_at.is_(None)).values(used_at=db_now()))
        await self.create(db=db, model=token)
        return True

    async def delete_expired(self, *, db: AsyncSession) -> None:
        """Delete expired tokens."""
        await db.execute(delete(OneTimeToken).where(OneTimeToken.expires_at <= db_now()))


def _in_force(security_stamp: Any) -> list[ColumnElement[bool]]:
    """Match tokens that are neither used, nor expired, nor asked for before a remedy."""
    return [
        OneTimeToken.used_at.is_(None),
        OneTimeToken.expires_at > db_now(),
        OneTimeToken.security_stamp == security_stamp,
        ~_was_ended(OneTimeToken.session_id),
    ]


def _was_ended(session_id: Any) -> ColumnElement[bool]:
    """Match where the session that asked for a link was revoked; logging out of it does not count."""
    return exists().where(AuthSession.id == session_id, AuthSession.revoke_reason != "logout")
