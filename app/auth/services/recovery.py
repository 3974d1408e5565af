"""Mailed links: new passwords and verified addresses."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.service import Intent
from app.auth.events import EmailAddressChanged, EmailAddressVerified, PasswordResetCompleted, PasswordResetRequested
from app.auth.exceptions import InvalidOneTimeToken
from app.auth.models import OneTimeToken, Purpose, User, UserStatus
from app.auth.repositories.tokens import OneTimeTokenRepository
from app.auth.repositories.users import UserRepository
from app.auth.schemas.auth import PasswordReset
from app.auth.security.identity import email_key
from app.auth.security.opaque_tokens import token_hash
from app.auth.services.accounts import AccountService
from app.auth.services.credentials import CredentialService
from app.auth.tasks import SendPasswordReset, SendVerification
from app.core.services.events import EventsServiceInterface
from app.core.services.queue import QueueServiceInterface


@dataclass(kw_only=True)
class RecoveryService:
    """Asks for links and honours them. Asking does the same for every address: one look-up, one queued task."""

    users: UserRepository
    tokens: OneTimeTokenRepository
    credentials: CredentialService
    accounts: AccountService
    queue: QueueServiceInterface
    events: EventsServiceInterface

    async def request_reset(self, email: str, *, db: AsyncSession) -> None:
        """Have a link for a new password sent, if the address has an account."""
        user = await self.users.find_by_email(db=db, email=email)
        await self.queue.push(task=SendPasswordReset, data=Intent.of(user).data())
        self.events.dispatch(PasswordResetRequested(user_id=user.id if user else None))
        await self.users.commit(db=db)

    async def request_verification(self, email: str, *, db: AsyncSession) -> None:
        """Have a link that verifies the address sent, if its account still needs one."""
        user = await self.users.find_by_email(db=db, email=email)
        await self.queue.push(task=SendVerification, data=Intent.of(user).data())
        await self.users.commit(db=db)

    async def reset_password(self, data: PasswordReset, *, db: AsyncSession) -> None:
        """Set a new password and log the user out everywhere. Whoever has the mail has the address: it is verified."""
        digest = token_hash(data.token)
        # Asked before hashing, which a wrong token should not cost.
        if await self.tokens.owner_id(db=db, token_hash=digest, purposes=[Purpose.RESET_PASSWORD]) is None:
            raise InvalidOneTimeToken
        password_hash = await self.credentials.hash(data.new_password.get_secret_value(), db=db)
        _, user = await self._consume(digest, Purpose.RESET_PASSWORD, db=db)
        await self.accounts.set_password(user, password_hash, db=db, is_verified=True)
        self.events.dispatch(PasswordResetCompleted(user_id=user.id, actor_id=user.id))
        await self.users.commit(db=db)

    async def verify_email(self, token: str, *, db: AsyncSession) -> None:
        """Mark the address as verified; a new address becomes the account's now (EmailTaken if it found an owner)."""
        consumed, user = await self._consume(token_hash(token), Purpose.VERIFY_EMAIL, Purpose.CHANGE_EMAIL, db=db)
        if consumed.purpose == Purpose.VERIFY_EMAIL:
            await self.users.update(db=db, model=user, data={"is_verified": True})
        else:
            session_id = consumed.session_id
            await self.accounts.move(user, consumed.email, db=db, session_id=session_id, is_verified=True)
            self.events.dispatch(EmailAddressChanged(user_id=user.id, actor_id=user.id))
        self.events.dispatch(EmailAddressVerified(user_id=user.id, actor_id=user.id))
        await self.users.commit(db=db)

    async def _consume(self, digest: str, *purposes: Purpose, db: AsyncSession) -> tuple[OneTimeToken, User]:
        """The token, used up, and its locked account; InvalidOneTimeToken where it must not count.

        The account is locked first, as by everything that raises its stamp: what commits first decides.
        """
        owner_id = await self.tokens.owner_id(db=db, token_hash=digest, purposes=purposes)
        user = await self.users.get(db=db, for_update=True, id=owner_id) if owner_id else None
        token = await self.tokens.consume(db=db, token_hash=digest, user=user) if user else None
        if token is None or user is None or user.status_id != UserStatus.ACTIVE:
            raise InvalidOneTimeToken
        if token.purpose != Purpose.CHANGE_EMAIL and email_key(token.email) != user.email_key:
            raise InvalidOneTimeToken  # the address changed since: this mailbox proves nothing any more
        return token, user
