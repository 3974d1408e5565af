"""Administration of accounts."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.events import SuperuserChanged, UserCreated
from app.auth.models import EndReason, UserStatus
from app.auth.repositories.sessions import SessionRepository
from app.auth.repositories.users import UserRepository
from app.auth.schemas.user import UserCreate, UserDTO, UserListParams, UserResponse, UserUpdate
from app.auth.services.accounts import AccountService
from app.auth.services.credentials import CredentialService
from app.auth.tasks import SendVerification
from app.core.db import PaginatedResult
from app.core.services.events import EventsServiceInterface
from app.core.services.queue import QueueServiceInterface

Policy: TypeAlias = Callable[[UserDTO], Awaitable[None]]
"""Raises ActionNotAllowed where the answer to its question is no."""


class UserService:
    """Lists, makes, changes and deletes accounts for `actor`.

    `may_grant` answers who may make and unmake superusers; it is asked only where the request changes that.
    """

    def __init__(
        self,
        *,
        users: UserRepository,
        sessions: SessionRepository,
        accounts: AccountService,
        credentials: CredentialService,
        events: EventsServiceInterface,
        queue: QueueServiceInterface,
    ) -> None:
        self.users = users
        self.sessions = sessions
        self.accounts = accounts
        self.credentials = credentials
        self.events = events
        self.queue = queue

    async def get(self, user_id: int, *, db: AsyncSession) -> UserDTO:
        """One account; UserNotFound otherwise."""
        return UserDTO.model_validate(await self.users.require(db=db, id=user_id))

    async def get_list(self, params: UserListParams, *, db: AsyncSession) -> PaginatedResult[UserResponse]:
        """One page of the accounts."""
        return await self.users.get_list(db=db, params=params, into=UserResponse)

    async def create(self, data: UserCreate, *, db: AsyncSession, actor: UserDTO, may_grant: Policy) -> UserDTO:
        """A new account; EmailTaken or UsernameTaken."""
        if data.is_superuser:
            await may_grant(actor)
        password_hash = await self.credentials.hash(data.password.get_secret_value(), db=db)
        values = data.model_dump(exclude={"password"})
        user = await self.users.add(db=db, password_hash=password_hash, **values)
        self.events.dispatch(UserCreated(user_id=user.id, actor_id=actor.id))
        if user.is_superuser:
            self.events.dispatch(SuperuserChanged(user_id=user.id, actor_id=actor.id, is_superuser=True))
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    async def update(
        self, user_id: int, changes: UserUpdate, *, db: AsyncSession, actor: UserDTO, may_grant: Policy
    ) -> UserDTO:
        """Change an account. A new address is unverified unless the change says otherwise."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        values = changes.model_dump(exclude_unset=True)
        if values.get("is_superuser", user.is_superuser) != user.is_superuser:
            await may_grant(actor)
        moves = values.get("email", user.email) != user.email
        if moves:
            values.setdefault("is_verified", False)
        if self._closes(values):
            await self.accounts.keep_a_superuser(user, db=db)
        if moves:
            await self.accounts.tell_old_address(user, values["email"])
            await self.queue.push(task=SendVerification, data={"user_id": user.id})
        before = {name: getattr(user, name) for name in values}
        await self.users.change(db=db, user=user, **values)
        self.accounts.tell_changes(user, before, actor_id=actor.id)
        if user.status_id != UserStatus.ACTIVE:
            await self.sessions.revoke(db=db, user_id=user.id, reason=EndReason.ACCOUNT_DISABLED)
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    def _closes(self, values: Mapping[str, Any]) -> bool:
        """Whether a superuser with these values could no longer administer the service."""
        unverified = values.get("is_verified") is False and self.accounts.verification_required
        return unverified or values.get("is_superuser") is False or values.get("status_id") == UserStatus.DISABLED

    async def delete(self, user_id: int, *, db: AsyncSession, actor: UserDTO) -> None:
        """Delete an account."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        await self.accounts.delete(user, db=db, actor_id=actor.id)
        await self.users.commit(db=db)
