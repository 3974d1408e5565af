"""The rules for changing an account that hold whoever asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.service import Links
from app.auth.emails.templates import (
    EmailChanged,
    EmailChangeRequested,
    PasswordReplaced,
    SuperuserGranted,
)
from app.auth.events import EmailAddressChanged, SuperuserChanged, UserDeleted, UserStatusChanged, UserUpdated
from app.auth.exceptions import AccountNotActive, InvalidAccessToken, LastSuperuser
from app.auth.models import EndReason, User, UserStatus
from app.auth.repositories.sessions import SessionRepository
from app.auth.repositories.users import UserRepository
from app.auth.schemas.user import UserDTO
from app.core.db import utcnow
from app.core.services.events import EventsServiceInterface
from app.core.services.mail import BaseTemplate, EmailData, MailServiceInterface


def is_usable(user: User | UserDTO, *, verification_required: bool) -> bool:
    """Whether its owner may log in and act: it is not disabled, and verified where that is required."""
    return user.status_id == UserStatus.ACTIVE and (user.is_verified or not verification_required)


@dataclass(kw_only=True)
class AccountService:
    """Shared by the profile and by administration. Nothing here commits."""

    users: UserRepository
    sessions: SessionRepository
    events: EventsServiceInterface
    mail: MailServiceInterface
    links: Links
    verification_required: bool

    async def require_live(self, user_id: int, session_id: int, *, db: AsyncSession) -> UserDTO:
        """The caller as of now: session or rights may have ended while the request waited for a hash or a lock.

        InvalidAccessToken or AccountNotActive otherwise, as at the start of a request.
        """
        caller = await self.users.principal(db=db, user_id=user_id, session_id=session_id)
        if caller is None:
            raise InvalidAccessToken
        if not is_usable(caller, verification_required=self.verification_required):
            raise AccountNotActive
        return caller

    async def delete(self, user: User, *, db: AsyncSession, actor_id: int) -> None:
        """Mark the locked account as deleted, end its sessions and tell the listeners."""
        await self.keep_a_superuser(user, db=db)
        await self.users.change(db=db, user=user, deleted_at=utcnow())
        await self.sessions.revoke(db=db, user_id=user.id, reason=EndReason.ACCOUNT_DELETED)
        self.events.dispatch(UserDeleted(**user.to_dict(), actor_id=actor_id))

    async def tell_changes(self, user: User, before: Mapping[str, Any], *, actor_id: int) -> None:
        """Tell the listeners which of the columns in `before` are different now."""
        fields = tuple(name for name, value in before.items() if getattr(user, name) != value)
        about: dict[str, Any] = {"user_id": user.id, "actor_id": actor_id}
        if fields:
            self.events.dispatch(UserUpdated(fields=fields, **about))
        if "email" in fields:
            self.events.dispatch(EmailAddressChanged(**about))
        if "status_id" in fields:
            self.events.dispatch(UserStatusChanged(status_id=user.status_id, **about))
        if "is_superuser" in fields and user.is_superuser:
            await self.tell_new_superuser(user, actor_id=actor_id)
        elif "is_superuser" in fields:
            self.events.dispatch(SuperuserChanged(is_superuser=False, **about))

    async def keep_a_superuser(self, user: User, *, db: AsyncSession) -> None:
        """LastSuperuser where nobody could administer the service without `user`."""
        if not user.is_superuser:
            return
        await self.users.lock_superusers(db=db)
        left = await self.users.active_superusers(db=db, only_verified=self.verification_required)
        if list(left) == [user.id]:
            raise LastSuperuser

    async def move(self, user: User, email: str, *, db: AsyncSession, session_id: int | None, **values: Any) -> None:
        """Give the locked account another address, tell the present one, and end all sessions but `session_id`."""
        await self._tell(user, EmailChanged(**self.links.greeting(user), new_email=email), "address")
        await self.users.change(db=db, user=user, email=email, **values)
        await self.sessions.revoke(db=db, user_id=user.id, but=session_id, reason=EndReason.EMAIL_CHANGED)

    async def tell_of_requested_move(self, user: User, email: str) -> None:
        """Let the owner of the present address know: it may be a thief who asks for another one."""
        await self._tell(user, EmailChangeRequested(**self.links.greeting(user), new_email=email), "address")

    async def set_password(
        self, user: User, password_hash: str, *, db: AsyncSession, session_id: int | None = None, **values: Any
    ) -> None:
        """Give the locked account another password, tell its address, and end all sessions but `session_id`."""
        await self.users.change(db=db, user=user, password_hash=password_hash, **values)
        await self.sessions.revoke(db=db, user_id=user.id, but=session_id, reason=EndReason.PASSWORD_CHANGED)
        template = PasswordReplaced(**self.links.greeting(user), url=self.links.forgot_password())
        await self._tell(user, template, "password")

    async def tell_new_superuser(self, user: User, *, actor_id: int | None = None) -> None:
        """Tell the account and the listeners that it was made a superuser."""
        self.events.dispatch(SuperuserChanged(user_id=user.id, actor_id=actor_id, is_superuser=True))
        await self._tell(user, SuperuserGranted(**self.links.greeting(user)), "account")

    async def _tell(self, user: User, template: BaseTemplate, about: str) -> None:
        data = EmailData(subject=f"Your {about} at {self.links.project}", recipients=[user.email])
        await self.mail.queue(template, data)
