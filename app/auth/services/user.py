"""Administration of accounts."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.service import Intent
from app.auth.events import UserCreated
from app.auth.models import EndReason, UserStatus
from app.auth.repositories.sessions import SessionRepository
from app.auth.repositories.users import UserRepository
from app.auth.schemas.user import UserCreate, UserDTO, UserListParams, UserResponse, UserUpdate
from app.auth.services.accounts import AccountService, is_usable
from app.auth.services.credentials import CredentialService
from app.auth.tasks import SendVerification
from app.core.db import PaginatedResult
from app.core.services.events import EventsServiceInterface
from app.core.services.queue import QueueServiceInterface

Policy: TypeAlias = Callable[[UserDTO], Awaitable[None]]
"""Raises ActionNotAllowed where the answer to its question is no."""


class Administrator(NamedTuple):
    """An administrator, their session, and the policies to ask when the change takes effect.

    `may_grant` is asked where a superuser is made, changed or deleted.
    """

    user_id: int
    session_id: int
    may_write: Policy
    may_grant: Policy


@dataclass(kw_only=True)
class UserService:
    """Lists, makes, changes and deletes accounts.

    Rights are checked once nothing is waited for any more: a hash or a lock takes time in which they may be taken.
    """

    users: UserRepository
    sessions: SessionRepository
    accounts: AccountService
    credentials: CredentialService
    events: EventsServiceInterface
    queue: QueueServiceInterface

    async def get(self, user_id: int, *, db: AsyncSession) -> UserDTO:
        """One account; UserNotFound otherwise."""
        return UserDTO.model_validate(await self.users.require(db=db, id=user_id))

    async def get_list(self, params: UserListParams, *, db: AsyncSession) -> PaginatedResult[UserResponse]:
        """One page of the accounts."""
        return await self.users.get_list(db=db, params=params, into=UserResponse)

    async def create(self, data: UserCreate, *, db: AsyncSession, by: Administrator) -> UserDTO:
        """A new account; EmailTaken or UsernameTaken."""
        password_hash = await self.credentials.hash(data.password.get_secret_value(), db=db)
        await self._authorise(by, db=db, superuser=data.is_superuser)
        values = data.model_dump(exclude={"password"})
        user = await self.users.add(db=db, password_hash=password_hash, **values)
        self.events.dispatch(UserCreated(**user.to_dict(), actor_id=by.user_id))
        if user.is_superuser:
            await self.accounts.tell_new_superuser(user, actor_id=by.user_id)
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    async def update(self, user_id: int, changes: UserUpdate, *, db: AsyncSession, by: Administrator) -> UserDTO:
        """Change an account. A new address ends its sessions, and is unverified unless the change says otherwise."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        values = changes.model_dump(exclude_unset=True)
        await self._authorise(by, db=db, superuser=user.is_superuser or bool(values.get("is_superuser")))
        moves = values.get("email", user.email) != user.email
        if moves:
            values.setdefault("is_verified", False)
        if self._closes(values):
            await self.accounts.keep_a_superuser(user, db=db)
        before = {name: getattr(user, name) for name in values}
        if moves:
            await self.accounts.move(user, db=db, session_id=by.session_id, **values)
            await self.queue.push(task=SendVerification, data=Intent.of(user).data())
        else:
            await self.users.change(db=db, user=user, **values)
        await self.accounts.tell_changes(user, before, actor_id=by.user_id)
        if not is_usable(user, verification_required=self.accounts.verification_required):
            await self.sessions.revoke(db=db, user_id=user.id, reason=EndReason.ACCOUNT_DISABLED)
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    def _closes(self, values: Mapping[str, Any]) -> bool:
        """Whether a superuser with these values could no longer administer the service."""
        unverified = values.get("is_verified") is False and self.accounts.verification_required
        return unverified or values.get("is_superuser") is False or values.get("status_id") == UserStatus.DISABLED

    async def delete(self, user_id: int, *, db: AsyncSession, by: Administrator) -> None:
        """Delete an account."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        await self._authorise(by, db=db, superuser=user.is_superuser)
        await self.accounts.delete(user, db=db, actor_id=by.user_id)
        await self.users.commit(db=db)

    async def _authorise(self, by: Administrator, *, db: AsyncSession, superuser: bool) -> None:
        actor = await self.accounts.require_live(by.user_id, by.session_id, db=db)
        await by.may_write(actor)
        if superuser:
            await by.may_grant(actor)
