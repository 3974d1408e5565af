"""Mails to accounts. Those with links are made and sent by tasks, so that no row ever holds a token."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.emails.templates import AddressTaken, ResetPassword, VerifyEmail, Welcome
from app.auth.models import OneTimeToken, Purpose, User, UserStatus
from app.auth.repositories import OneTimeTokenRepository, UserRepository
from app.auth.security.tokens import new_token, token_hash
from app.core.configs import AppConfig
from app.core.db import db_now, utcnow
from app.core.services.mail import BaseTemplate, EmailData, MailServiceInterface
from app.core.services.queue import current_job


class LinkRequest(NamedTuple):
    """A request for a mailed link, carried by a task: who asked, and under which security stamp.

    `user_id` is None for an address that has no account, `email` the new one of a change of address. Tasks stored by
    versions without stamps count as stamp 0. It was asked for when its job was stored; tasks of versions whose hosts
    told the time carry `asked_at`.
    """

    user_id: int | None
    stamp: int = 0
    asked_at: datetime | None = None
    session_id: int | None = None
    email: str | None = None


class Links:
    """URLs of the front end's pages, and what mails call the service.

    They come from settings alone: a Host header must not end up in a mail. The token is in the fragment, which
    browsers send to no server.
    """

    def __init__(self, settings: AppConfig) -> None:
        self.project = settings.PROJECT_NAME
        self._base = str(settings.FRONTEND_URL).rstrip("/")

    def greeting(self, user: User) -> dict[str, Any]:
        """Return the values that every mail to an account shows; the name only where the address is verified.

        Mail programs make links of names like `www.example.com`, and anybody can register anybody's address.
        """
        return {"project": self.project, "username": user.username if user.is_verified else None}

    def page(self, name: Literal["verify-email", "reset-password", "forgot-password"], token: str = "") -> str:
        """Return the URL of a page, with the token that it sends back."""
        return f"{self._base}/{name}#token={token}" if token else f"{self._base}/{name}"


@dataclass(kw_only=True)
class AccountMailService:
    """Sends mails with links. A repeated run makes a new token: the one before may have been lost with its mail.

    A link is made only while the account's security stamp is the one it was asked for under, and only the link asked
    for last is in force.
    """

    config: AuthConfig
    mail: MailServiceInterface
    links: Links
    users = UserRepository()
    tokens = OneTimeTokenRepository()

    async def send_welcome(self, user_id: int, *, db: AsyncSession) -> None:
        """Greet a new account, with a link while its address is not verified and it is as it was made."""
        user = await self._usable(user_id, db=db)
        if user is None:
            return
        token = None
        if not user.is_verified and user.security_stamp == 0:
            request = LinkRequest(user.id, 0)
            token = await self._token(user, user.email, "verify_email", request, db=db)
        template = Welcome(**self.links.greeting(user), url=self.links.page("verify-email", token) if token else None)
        await self._send(template, f"Welcome to {self.links.project}", user.email, db=db)

    async def send_verification(self, request: LinkRequest, *, db: AsyncSession) -> None:
        """Send a link that verifies the account's address, if it still has to be."""
        user = await self._requester(request, db=db)
        if user and not user.is_verified:
            await self._send_verification(user, user.email, "verify_email", request, db=db)

    async def send_email_change(self, request: LinkRequest, *, db: AsyncSession) -> None:
        """Send the new address a link that makes it the account's; an address that has an account is told so."""
        user, email = await self._requester(request, db=db), request.email
        if user is None or email is None:
            return
        owner = await self.users.find_by_email(db=db, email=email)
        if owner and owner.id != user.id:
            template = AddressTaken(**self.links.greeting(owner), url=self.links.page("forgot-password"))
            await self._send(template, f"Your account at {self.links.project}", owner.email, db=db)
        else:
            await self._send_verification(user, email, "change_email", request, db=db)

    async def send_password_reset(self, request: LinkRequest, *, db: AsyncSession) -> None:
        """Send a link that sets a new password."""
        user = await self._requester(request, db=db)
        if user and (token := await self._token(user, user.email, "reset_password", request, db=db)):
            template = ResetPassword(
                **self.links.greeting(user),
                url=self.links.page("reset-password", token),
                minutes=self.config.EMAIL_RESET_TOKEN_EXPIRE_MINUTES,
            )
            await self._send(template, f"Your new password at {self.links.project}", user.email, db=db)

    async def _usable(self, user_id: int | None, *, db: AsyncSession) -> User | None:
        """Return the account, locked, if it exists and is not disabled; an unknown address has no id."""
        user = await self.users.get(db=db, for_update=True, id=user_id or 0)
        return user if user and user.status_id == UserStatus.ACTIVE else None

    async def _requester(self, request: LinkRequest, *, db: AsyncSession) -> User | None:
        """Return the account, locked, unless its stamp was raised since the link was asked for."""
        user = await self._usable(request.user_id, db=db)
        return user if user and user.security_stamp == request.stamp else None

    async def _token(
        self, user: User, email: str, purpose: Purpose, request: LinkRequest, *, db: AsyncSession
    ) -> str | None:
        """Store the token of a new link and void older ones of its purpose; None where it would not count."""
        token, job, minutes = new_token(), current_job(), self.config.EMAIL_VERIFY_TOKEN_EXPIRE_HOURS * 60
        if purpose == "reset_password":
            minutes = self.config.EMAIL_RESET_TOKEN_EXPIRE_MINUTES
        row = OneTimeToken(
            user_id=user.id,
            purpose=purpose,
            token_hash=token_hash(token),
            email=email,
            expires_at=db_now(minutes * 60),
            security_stamp=request.stamp,
            session_id=request.session_id,
            created_at=request.asked_at or (job.created_at if job else utcnow()),
        )
        return token if await self.tokens.replace(db=db, token=row) else None

    async def _send_verification(
        self, user: User, email: str, purpose: Purpose, request: LinkRequest, *, db: AsyncSession
    ) -> None:
        if token := await self._token(user, email, purpose, request, db=db):
            template = VerifyEmail(  # no name: nobody has proven yet whose mailbox this is
                project=self.links.project,
                url=self.links.page("verify-email", token),
                hours=self.config.EMAIL_VERIFY_TOKEN_EXPIRE_HOURS,
            )
            await self._send(template, f"Confirm your address at {self.links.project}", email, db=db)

    async def _send(self, template: BaseTemplate, subject: str, recipient: str, *, db: AsyncSession) -> None:
        await self.users.commit(db=db)  # the token is stored, and no transaction waits for the mail server
        await self.mail.send(template, EmailData(subject=subject, recipients=[recipient]))
