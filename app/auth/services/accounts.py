"""The rules for changing an account that hold whoever asks."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.templates import EmailChanged
from app.auth.events import EmailAddressChanged, SuperuserChanged, UserDeleted, UserStatusChanged, UserUpdated
from app.auth.exceptions import LastSuperuser
from app.auth.models import EndReason, User
from app.auth.repositories.sessions import SessionRepository
from app.auth.repositories.users import UserRepository
from app.auth.services.links import Links
from app.core.services.events import EventsServiceInterface
from app.core.services.mail import EmailData, MailServiceInterface


class AccountService:
    """Shared by the profile and by administration. Nothing here commits."""

    def __init__(
        self,
        *,
        users: UserRepository,
        sessions: SessionRepository,
        events: EventsServiceInterface,
        mail: MailServiceInterface,
        links: Links,
        verification_required: bool,
    ) -> None:
        self.users = users
        self.sessions = sessions
        self.events = events
        self.mail = mail
        self.links = links
        self.verification_required = verification_required

    async def delete(self, user: User, *, db: AsyncSession, actor_id: int) -> None:
        """Mark the account as deleted, end its sessions and tell the listeners."""
        await self.keep_a_superuser(user, db=db)
        await self.users.delete(db=db, entity=user)
        await self.sessions.revoke(db=db, user_id=user.id, reason=EndReason.ACCOUNT_DELETED)
        self.events.dispatch(UserDeleted(user_id=user.id, actor_id=actor_id))

    def tell_changes(self, user: User, before: Mapping[str, Any], *, actor_id: int) -> None:
        """Tell the listeners which of the columns in `before` are different now."""
        fields = tuple(name for name, value in before.items() if getattr(user, name) != value)
        about: dict[str, Any] = {"user_id": user.id, "actor_id": actor_id}
        if fields:
            self.events.dispatch(UserUpdated(fields=fields, **about))
        if "email" in fields:
            self.events.dispatch(EmailAddressChanged(**about))
        if "status_id" in fields:
            self.events.dispatch(UserStatusChanged(status_id=user.status_id, **about))
        if "is_superuser" in fields:
            self.events.dispatch(SuperuserChanged(is_superuser=user.is_superuser, **about))

    async def keep_a_superuser(self, user: User, *, db: AsyncSession) -> None:
        """LastSuperuser where nobody could administer the service without `user`."""
        if not user.is_superuser:
            return
        await self.users.lock_superusers(db=db)
        left = await self.users.active_superusers(db=db, only_verified=self.verification_required)
        if list(left) == [user.id]:
            raise LastSuperuser

    async def tell_old_address(self, user: User, new_email: str) -> None:
        """Let the owner of the present address know: it may be a thief who changes it."""
        await self.mail.queue(
            EmailChanged(project=self.links.project, username=user.username, new_email=new_email),
            EmailData(subject=f"Your address at {self.links.project}", recipients=[user.email]),
        )
