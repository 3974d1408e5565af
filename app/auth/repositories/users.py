"""Accounts in the database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.exceptions import EmailTaken, UsernameTaken, UserNotFound
from app.auth.models import AuthSession, User, UserStatus
from app.auth.schemas.user import UserDTO
from app.auth.security.identity import email_key, is_username, username_key
from app.core.db import BaseRepository, utcnow
from app.core.exceptions import UniqueViolation

REMEDIES = ("email", "password_hash", "status_id", "is_verified", "is_superuser", "deleted_at")
"""The columns whose change takes authority from whoever held it: it raises the security stamp."""

_DTO_COLUMNS = [getattr(User, name) for name in UserDTO.model_fields]

# Built once: composing it anew costs a request more than running it.
_PRINCIPAL = (
    select(*_DTO_COLUMNS)
    .join(AuthSession, AuthSession.user_id == User.id)
    .where(
        AuthSession.id == bindparam("session_id"),
        AuthSession.revoked_at.is_(None),
        AuthSession.expires_at > bindparam("now"),
        User.id == bindparam("user_id"),
        User.deleted_at.is_(None),
    )
)


class UserRepository(BaseRepository[User]):
    """Reads and writes accounts; a taken address or name is EmailTaken or UsernameTaken."""

    not_found = UserNotFound

    async def find_by_email(self, *, db: AsyncSession, email: str) -> User | None:
        """The account of an address, in whichever spelling."""
        try:
            return await self.get(db=db, email_key=email_key(email))
        except ValueError:
            return None

    async def find_by_login(self, *, db: AsyncSession, login: str) -> User | None:
        """The account that `login` names: an address where it has an @, a user name otherwise."""
        if "@" in login:
            return await self.find_by_email(db=db, email=login)
        return await self.get(db=db, username_key=username_key(login)) if is_username(login) else None

    async def principal(self, *, db: AsyncSession, user_id: int, session_id: int) -> UserDTO | None:
        """The user of a live session: one statement for both, and no entity, as every request asks this."""
        values = {"user_id": user_id, "session_id": session_id, "now": utcnow()}
        row = (await db.execute(_PRINCIPAL, values)).one_or_none()
        return None if row is None else UserDTO.model_validate(row)

    async def get_by_ids(self, *, db: AsyncSession, ids: Sequence[int]) -> list[UserDTO]:
        """The accounts that exist among `ids`, in the order of their ids."""
        statement = self.base_statement().with_only_columns(*_DTO_COLUMNS).where(User.id.in_(set(ids)))
        return [UserDTO.model_validate(row) for row in await db.execute(statement.order_by(User.id))]

    async def add(self, *, db: AsyncSession, email: str, username: str, **values: Any) -> User:
        """Store a new account."""
        keys = {"email_key": email_key(email), "username_key": username_key(username)}
        try:
            async with db.begin_nested():
                return await self.create(db=db, data={"email": email, "username": username, **keys, **values})
        except UniqueViolation as exc:
            raise _taken(exc) from exc

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
        try:
            async with db.begin_nested():
                return await self.update(db=db, model=user, data=values)
        except UniqueViolation as exc:
            raise _taken(exc) from exc

    async def raise_stamp(self, *, db: AsyncSession, user_id: int) -> None:
        """Make every link of the account void, and every queued mail with one."""
        await db.execute(update(User).where(User.id == user_id).values(security_stamp=User.security_stamp + 1))

    async def lock_superusers(self, *, db: AsyncSession) -> None:
        """Have whoever else adds or removes superusers wait until the transaction ends.

        An advisory lock, as it is taken after row locks and row locks of each other's rows would be a deadlock.
        On SQLite a writing unit is alone anyway.
        """
        if db.get_bind().dialect.name == "postgresql":
            await db.execute(text("SELECT pg_advisory_xact_lock(hashtext('auth_users.is_superuser'))"))

    async def active_superusers(self, *, db: AsyncSession, only_verified: bool) -> Sequence[int]:
        """The ids of those who can administer the service."""
        statement = self.base_statement().where(User.is_superuser, User.status_id == UserStatus.ACTIVE)
        if only_verified:
            statement = statement.where(User.is_verified)
        return (await db.scalars(statement.with_only_columns(User.id))).all()


def _taken(exc: UniqueViolation) -> EmailTaken | UsernameTaken:
    return EmailTaken() if exc.constraint == "uq_auth_users_email_key" else UsernameTaken()
