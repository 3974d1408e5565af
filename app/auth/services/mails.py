"""Mails with secrets in them: made and sent by tasks, so that no row ever holds a token."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.emails.templates import AddressTaken, AuthTemplate, ResetPassword, VerifyEmail, Welcome
from app.auth.models import OneTimeToken, Purpose, User, UserStatus
from app.auth.repositories.tokens import OneTimeTokenRepository
from app.auth.repositories.users import UserRepository
from app.auth.security.opaque_tokens import new_token, token_hash
from app.auth.services.links import Links
from app.core.db import utcnow
from app.core.services.mail import EmailData, MailServiceInterface


class AccountMailService:
    """Sends each account mail. A repeated run makes a new token: the one before may have been lost with its mail."""

    def __init__(
        self,
        *,
        users: UserRepository,
        tokens: OneTimeTokenRepository,
        mail: MailServiceInterface,
        links: Links,
        config: AuthConfig,
    ) -> None:
        self.users = users
        self.tokens = tokens
        self.mail = mail
        self.links = links
        self.config = config

    async def send_welcome(self, user_id: int, *, db: AsyncSession) -> None:
        """Greet a new account, with a link while its address is not verified."""
        if user := await self._usable(user_id, db=db):
            url = None if user.is_verified else await self._verification_url(user, user.email, db=db)
            template = Welcome(project=self.links.project, username=user.username, url=url)
            await self._send(template, f"Welcome to {self.links.project}", user.email, db=db)

    async def send_verification(self, user_id: int | None, *, db: AsyncSession) -> None:
        """Send a link that verifies the account's address, if it still has to be."""
        user = await self._usable(user_id, db=db)
        if user and not user.is_verified:
            url = await self._verification_url(user, user.email, db=db)
            await self._send_verification(user, user.email, url, db=db)

    async def send_email_change(self, user_id: int, email: str, *, db: AsyncSession) -> None:
        """Send the new address a link that makes it the account's; an address that has an account is told so."""
        user = await self._usable(user_id, db=db)
        if user is None:
            return
        owner = await self.users.find_by_email(db=db, email=email)
        if owner and owner.id != user.id:
            template = AddressTaken(
                project=self.links.project, username=owner.username, url=self.links.forgot_password()
            )
            await self._send(template, f"Your account at {self.links.project}", owner.email, db=db)
        else:
            url = await self._verification_url(user, email, db=db, purpose=Purpose.CHANGE_EMAIL)
            await self._send_verification(user, email, url, db=db)

    async def send_password_reset(self, user_id: int | None, *, db: AsyncSession) -> None:
        """Send a link that sets a new password."""
        if user := await self._usable(user_id, db=db):
            minutes = self.config.EMAIL_RESET_TOKEN_EXPIRE_MINUTES
            token = await self._token(user, user.email, Purpose.RESET_PASSWORD, timedelta(minutes=minutes), db=db)
            template = ResetPassword(
                project=self.links.project,
                username=user.username,
                url=self.links.reset_password(token),
                minutes=minutes,
            )
            await self._send(template, f"Your new password at {self.links.project}", user.email, db=db)

    async def _usable(self, user_id: int | None, *, db: AsyncSession) -> User | None:
        """The account, if there is one and it is not disabled; None is an address that had no account."""
        user = await self.users.get(db=db, id=user_id or 0)
        return user if user and user.status_id == UserStatus.ACTIVE else None

    async def _verification_url(
        self, user: User, email: str, *, db: AsyncSession, purpose: Purpose = Purpose.VERIFY_EMAIL
    ) -> str:
        lifetime = timedelta(hours=self.config.EMAIL_VERIFY_TOKEN_EXPIRE_HOURS)
        return self.links.verify_email(await self._token(user, email, purpose, lifetime, db=db))

    async def _token(self, user: User, email: str, purpose: Purpose, lifetime: timedelta, *, db: AsyncSession) -> str:
        token = new_token()
        row = OneTimeToken(
            user_id=user.id,
            purpose=purpose,
            token_hash=token_hash(token),
            email=email,
            expires_at=utcnow() + lifetime,
        )
        await self.tokens.create(db=db, entity=row)
        return token

    async def _send_verification(self, user: User, email: str, url: str, *, db: AsyncSession) -> None:
        template = VerifyEmail(
            project=self.links.project,
            username=user.username,
            url=url,
            hours=self.config.EMAIL_VERIFY_TOKEN_EXPIRE_HOURS,
        )
        await self._send(template, f"Confirm your address at {self.links.project}", email, db=db)

    async def _send(self, template: AuthTemplate, subject: str, recipient: str, *, db: AsyncSession) -> None:
        await self.users.commit(db=db)  # the token is stored, and no transaction waits for the mail server
        await self.mail.send(template, EmailData(subject=subject, recipients=[recipient]))
