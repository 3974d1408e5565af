"""The rules for changing an account that hold whoever asks."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.templates import EmailChanged
from app.auth.events import UserDeleted
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

    async def delete(self, user: User, *, db: AsyncSession) -> None:
        """Mark the account as deleted, end its sessions and tell the listeners."""
        await self.keep_a_superuser(user, db=db)
        await self.users.delete(db=db, entity=user)
        await self.sessions.revoke(db=db, user_id=user.id, reason=EndReason.ACCOUNT_DELETED)
        self.events.dispatch(UserDeleted(user_id=user.id))

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
