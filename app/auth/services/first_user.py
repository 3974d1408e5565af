"""The first administrator."""

import secrets
from typing import NamedTuple

from app.auth.config import get_auth_config
from app.auth.repositories.users import UserRepository
from app.core.configs import get_settings
from app.core.db import session_scope


class CreatedAdmin(NamedTuple):
    """The account just made; `password` only where it was generated."""

    email: str
    password: str | None


async def ensure_first_user() -> CreatedAdmin | None:
    """Make the first superuser where there is none; None where there is one already.

    Outside `local` and `testing` no password is generated: it would end up in a log. Safe with several
    processes at once: one of them makes the account. It is not told as an event: nobody registered.
    """
    config, users = get_auth_config(), UserRepository()
    given = config.FIRST_USER_PASSWORD
    if given is None and not get_settings().is_relaxed:
        return None
    async with session_scope(read_only=True) as db:
        if await users.exists(db=db, is_superuser=True):
            return None
    password = given.get_secret_value() if given else secrets.token_urlsafe(12)
    password_hash = await config.password_hasher.hash(password)
    async with session_scope() as db:
        await users.lock_table(db=db)
        if await users.exists(db=db, is_superuser=True):
            return None
        await users.add(
            db=db,
            email=config.FIRST_USER_EMAIL,
            username=config.FIRST_USER_USERNAME,
            password_hash=password_hash,
            is_verified=True,
            is_superuser=True,
        )
    return CreatedAdmin(config.FIRST_USER_EMAIL, None if given else password)
