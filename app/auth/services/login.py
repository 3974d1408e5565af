"""Logging in."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.events import LoginFailed, LoginFailure
from app.auth.exceptions import InvalidGrant
from app.auth.models import User
from app.auth.repositories.users import UserRepository
from app.auth.schemas.auth import LoginForm, TokenAnswer
from app.auth.services.accounts import is_usable
from app.auth.services.credentials import CredentialService
from app.auth.services.sessions import SessionService
from app.core.services.events import EventsServiceInterface


@dataclass(kw_only=True)
class LoginService:
    """Exchanges a password for a session. Every refusal is the same answer after the same work."""

    users: UserRepository
    credentials: CredentialService
    sessions: SessionService
    events: EventsServiceInterface

    async def login(self, form: LoginForm, *, db: AsyncSession) -> TokenAnswer:
        """The tokens of a new session; InvalidGrant where the password is wrong or the account cannot be used."""
        found = await self.users.find_by_login(db=db, login=form.username)
        user = await self.credentials.check(found, db=db, password=form.password.get_secret_value())
        # An unverified account is refused like an unknown one: otherwise whoever registers an address could log in to
        # learn whether it was free.
        if user is None or not is_usable(user, verification_required=self.sessions.verification_required):
            await self._tell_failure(found, db=db, verified=user is not None)
            raise InvalidGrant("The user name or the password is wrong, or the account cannot be used.")
        answer = await self.sessions.open(user, db=db)
        await self.users.commit(db=db)
        return answer

    async def _tell_failure(self, found: User | None, *, db: AsyncSession, verified: bool) -> None:
        if found is None:
            reason = LoginFailure.UNKNOWN_ACCOUNT
        else:
            reason = LoginFailure.ACCOUNT_NOT_ACTIVE if verified else LoginFailure.WRONG_PASSWORD
        self.events.dispatch(LoginFailed(user_id=found.id if found else None, reason=reason))
        await self.users.commit(db=db)  # before the refusal leaves: its error would roll this back
