"""Services for callers without a session: registering, requesting mailed links and using them."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.templates import AddressTaken, UsernameNotFree
from app.auth.events import (
    EmailAddressChanged,
    EmailAddressVerified,
    PasswordResetCompleted,
    PasswordResetRequested,
    UserCreated,
)
from app.auth.exceptions import EmailTaken, InvalidOneTimeToken, RegistrationClosed, UsernameTaken
from app.auth.models import OneTimeToken, Purpose, User, UserStatus
from app.auth.repositories import OneTimeTokenRepository
from app.auth.schemas.auth import PasswordReset, Registration
from app.auth.schemas.user import UserDTO
from app.auth.security.identity import email_key, usernames_from
from app.auth.security.tokens import token_hash
from app.auth.services.accounts import AccountService
from app.auth.tasks import SendPasswordReset, SendVerification
from app.core.db import utcnow


@dataclass(kw_only=True)
class RegistrationService(AccountService):
    """Makes accounts for whoever asks."""

    async def register(self, data: Registration, *, db: AsyncSession) -> UserDTO | None:
        """Return the new account; raises EmailTaken or UsernameTaken.

        Where addresses must be verified the caller is told nothing (None), and the mailbox everything:
        a conflict, on the name too, would tell which addresses have an account.
        """
        if not self.config.USER_REGISTRATION_ALLOWED:
            raise RegistrationClosed
        password_hash = await self.hash_password(data.password, db=db, owner=data)
        try:
            user = await self._add(data, password_hash, db=db)
        except (EmailTaken, UsernameTaken):
            if not self.config.verification_required:
                raise
            if (await self.limits.mail("registration", data.email)).allowed:
                await self._mail_conflict(data, db=db)
            await self.users.commit(db=db)
            return None
        welcome = await self.limits.mail("registration", data.email)
        if not self.config.verification_required:
            welcome.require()  # whoever deletes the account can register it again; elsewhere it must be verified first
        self.events.dispatch(UserCreated(**user.to_dict()))
        await self.users.commit(db=db)
        return None if self.config.verification_required else UserDTO.model_validate(user)

    async def _add(self, data: Registration, password_hash: str, *, db: AsyncSession) -> User:
        """Store the account; without a name it gets the first free one of those made from its address."""
        values: dict[str, Any] = {"email": data.email, "password_hash": password_hash}
        if self.config.verification_required:
            values["verify_until"] = utcnow() + timedelta(days=self.config.USER_UNVERIFIED_KEEP_DAYS)
        for username in [data.username] if data.username else usernames_from(data.email):
            with suppress(UsernameTaken):  # the index decides: two may want one name at once
                return await self.users.add(db=db, username=username, **values)
        raise UsernameTaken

    async def _mail_conflict(self, data: Registration, *, db: AsyncSession) -> None:
        owner = await self.users.find_by_email(db=db, email=data.email)
        if owner is None:
            await self.notify(data.email, "registration", UsernameNotFree(project=self.links.project))
        else:
            template = AddressTaken(**self.links.greeting(owner), url=self.links.page("forgot-password"))
            await self.notify(owner.email, "account", template)


@dataclass(kw_only=True)
class RecoveryService(AccountService):
    """Sends and accepts links. Asking does the same for every address: one look-up, one queued task."""

    tokens = OneTimeTokenRepository()

    async def request_reset(self, email: str, *, db: AsyncSession) -> None:
        """Queue a link for a new password, mailed if the address has an account."""
        if not (await self.limits.mail("reset", email)).allowed:
            return
        user = await self.users.find_by_email(db=db, email=email)
        await self.queue_link(SendPasswordReset, user)
        self.events.dispatch(PasswordResetRequested(user_id=user.id if user else None))
        await self.users.commit(db=db)

    async def request_verification(self, email: str, *, db: AsyncSession) -> None:
        """Queue a link that verifies the address, mailed if its account still needs one."""
        if not (await self.limits.mail("verification", email)).allowed:
            return
        user = await self.users.find_by_email(db=db, email=email)
        await self.queue_link(SendVerification, user)
        await self.users.commit(db=db)

    async def reset_password(self, data: PasswordReset, *, db: AsyncSession) -> None:
        """Set a new password and log the user out everywhere. Whoever has the mail has the address: it is verified."""
        digest = token_hash(data.token)
        # Asked before hashing, which a wrong token should not cost.
        owner_id = await self.tokens.owner_id(db=db, token_hash=digest, purposes=["reset_password"])
        owner = await self.users.get(db=db, id=owner_id) if owner_id else None
        if owner is None:
            raise InvalidOneTimeToken
        password_hash = await self.hash_password(data.new_password, db=db, owner=owner, field="new_password")
        _, user = await self._consume(digest, "reset_password", db=db)
        await self.set_password(user, password_hash, db=db, is_verified=True)
        self.events.dispatch(PasswordResetCompleted(user_id=user.id, actor_id=user.id))
        await self.users.commit(db=db)

    async def verify_email(self, token: str, *, db: AsyncSession) -> None:
        """Mark the address as verified; a new address becomes the account's now. Raises EmailTaken."""
        consumed, user = await self._consume(token_hash(token), "verify_email", "change_email", db=db)
        if consumed.purpose == "verify_email":
            await self.users.update(db=db, model=user, data={"is_verified": True})
        else:
            await self.change_email(user, consumed.email, db=db, session_id=consumed.session_id, is_verified=True)
            self.events.dispatch(EmailAddressChanged(user_id=user.id, actor_id=user.id))
        self.events.dispatch(EmailAddressVerified(user_id=user.id, actor_id=user.id))
        await self.users.commit(db=db)

    async def _consume(self, digest: str, *purposes: Purpose, db: AsyncSession) -> tuple[OneTimeToken, User]:
        """Return the token, used up, and its locked account; raises InvalidOneTimeToken where it must not count.

        The account is locked first, as by everything that raises its stamp: what commits first decides.
        """
        owner_id = await self.tokens.owner_id(db=db, token_hash=digest, purposes=purposes)
        user = await self.users.get(db=db, for_update=True, id=owner_id) if owner_id else None
        token = await self.tokens.consume(db=db, token_hash=digest, user=user) if user else None
        if token is None or user is None or user.status_id != UserStatus.ACTIVE:
            raise InvalidOneTimeToken
        if token.purpose != "change_email" and email_key(token.email) != user.email_key:
            raise InvalidOneTimeToken  # the address changed since: this mailbox proves nothing any more
        return token, user
