"""Account operations of `kit` and of the first start, which have no account. Each needs an open runtime."""

import secrets
from typing import NamedTuple

from pydantic import SecretStr

from app.auth.config import get_auth_config
from app.auth.emails.service import Links
from app.auth.events import PasswordResetCompleted
from app.auth.exceptions import EmailTaken, UsernameTaken
from app.auth.repositories import UserRepository
from app.auth.schemas.user import UserCreate, UserDTO
from app.auth.services.accounts import AccountService
from app.core.configs import get_settings
from app.core.db import session_scope
from app.core.services.events.interface import current_events
from app.core.services.mail.interface import current_mail


class CreatedAdmin(NamedTuple):
    """The account just made; `password` only where it was generated."""

    email: str
    password: str | None


class NoFirstUser(Exception):
    """Nobody can administer the service, and settings must change first; the message says which."""


async def ensure_first_user() -> CreatedAdmin | None:
    """Make the first superuser, or return None where there is one already.

    Safe with several processes at once: one of them makes the account. No event is dispatched: nobody registered.
    Raises NoFirstUser where it cannot be made: outside `local` and `testing` no password is generated, as it would
    end up in a log, and the address or the name may be somebody else's.
    """
    config, users = get_auth_config(), UserRepository()
    async with session_scope(read_only=True) as db:
        if await users.exists(db=db, is_superuser=True):
            return None
    given = config.FIRST_USER_PASSWORD
    if given is None and not get_settings().is_relaxed:
        raise NoFirstUser("There is no administrator yet: set FIRST_USER_EMAIL and FIRST_USER_PASSWORD")
    password = given.get_secret_value() if given else secrets.token_urlsafe(12)
    password_hash = await config.password_hasher.hash(password)
    async with session_scope() as db:
        await users.lock_superusers(db=db)
        if await users.exists(db=db, is_superuser=True):
            return None
        try:
            await users.add(
                db=db,
                email=config.FIRST_USER_EMAIL,
                username=config.FIRST_USER_USERNAME,
                password_hash=password_hash,
                is_verified=True,
                is_superuser=True,
            )
        except (EmailTaken, UsernameTaken) as exc:
            setting = "FIRST_USER_EMAIL" if isinstance(exc, EmailTaken) else "FIRST_USER_USERNAME"
            raise NoFirstUser(f"There is no administrator yet, and {setting} belongs to another account") from exc
    return CreatedAdmin(config.FIRST_USER_EMAIL, None if given else password)


async def create_account(data: UserCreate) -> UserDTO:
    """Make an account; raises EmailTaken or UsernameTaken."""
    password_hash = await get_auth_config().password_hasher.hash(data.password.get_secret_value())
    async with session_scope() as db:
        return await _accounts().create(data, password_hash, db=db)


async def reset_password(login: str, password: SecretStr) -> UserDTO:
    """Set the password of the account with this address or user name, as a mailed link would; raises UserNotFound."""
    users = UserRepository()
    password_hash = await get_auth_config().password_hasher.hash(password.get_secret_value())
    async with session_scope() as db:
        found = await users.find_by_login(db=db, login=login)
        user = await users.require(db=db, id=found.id if found else 0, for_update=True)
        await _accounts().set_password(user, password_hash, db=db)
        current_events().dispatch(PasswordResetCompleted(user_id=user.id))
        return UserDTO.model_validate(user)


def _accounts() -> AccountService:
    links = Links(get_settings())
    return AccountService(config=get_auth_config(), events=current_events(), mail=current_mail(), links=links)
