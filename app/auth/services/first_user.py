"""The first administrator."""

import secrets
from typing import NamedTuple

from app.auth.config import get_auth_config
from app.auth.exceptions import EmailTaken, UsernameTaken
from app.auth.repositories.users import UserRepository
from app.core.configs import get_settings
from app.core.db import session_scope


class CreatedAdmin(NamedTuple):
    """The account just made; `password` only where it was generated."""

    email: str
    password: str | None


class NoFirstUser(Exception):
    """Nobody can administer the service, and settings must change first; the message says which."""


async def ensure_first_user() -> CreatedAdmin | None:
    """Make the first superuser where there is none; None where there is one already.

    Safe with several processes at once: one of them makes the account. It is not told as an event: nobody
    registered. NoFirstUser where it cannot be made: outside `local` and `testing` no password is generated,
    as it would end up in a log, and the address or the name may be somebody else's.
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
