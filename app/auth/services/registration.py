"""Registering."""

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.service import Links
from app.auth.emails.templates import AddressTaken, UsernameNotFree
from app.auth.events import UserCreated
from app.auth.exceptions import EmailTaken, RegistrationClosed, UsernameTaken
from app.auth.models import User
from app.auth.repositories.users import UserRepository
from app.auth.schemas.auth import Registration
from app.auth.schemas.user import UserDTO
from app.auth.security.identity import usernames_from
from app.auth.services.credentials import CredentialService
from app.core.services.events import EventsServiceInterface
from app.core.services.mail import EmailData, MailServiceInterface


@dataclass(kw_only=True)
class RegistrationService:
    """Makes accounts for whoever asks."""

    users: UserRepository
    credentials: CredentialService
    events: EventsServiceInterface
    mail: MailServiceInterface
    links: Links
    allowed: bool
    verification_required: bool

    async def register(self, data: Registration, *, db: AsyncSession) -> UserDTO | None:
        """The new account; a taken address or name is a conflict.

        Where addresses must be verified the caller is told nothing (None), and the mailbox everything:
        a conflict, on the name too, would tell which addresses have an account.
        """
        if not self.allowed:
            raise RegistrationClosed
        password_hash = await self.credentials.hash(data.password.get_secret_value(), db=db)
        try:
            user = await self._add(data, password_hash, db=db)
        except (EmailTaken, UsernameTaken):
            if not self.verification_required:
                raise
            await self._tell_mailbox(data, db=db)
            await self.users.commit(db=db)
            return None
        self.events.dispatch(UserCreated(**user.to_dict()))
        await self.users.commit(db=db)
        return None if self.verification_required else UserDTO.model_validate(user)

    async def _add(self, data: Registration, password_hash: str, *, db: AsyncSession) -> User:
        """Store the account; without a name it gets the first free one of those made from its address."""
        for username in [data.username] if data.username else usernames_from(data.email):
            with suppress(UsernameTaken):  # the index decides: two may want one name at once
                return await self.users.add(db=db, email=data.email, username=username, password_hash=password_hash)
        raise UsernameTaken

    async def _tell_mailbox(self, data: Registration, *, db: AsyncSession) -> None:
        owner = await self.users.find_by_email(db=db, email=data.email)
        if owner is None:
            await self.mail.queue(
                UsernameNotFree(project=self.links.project),
                EmailData(subject=f"Your registration at {self.links.project}", recipients=[data.email]),
            )
        else:
            await self.mail.queue(
                AddressTaken(**self.links.greeting(owner), url=self.links.forgot_password()),
                EmailData(subject=f"Your account at {self.links.project}", recipients=[owner.email]),
            )
