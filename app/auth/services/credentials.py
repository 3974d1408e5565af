"""Checking passwords."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.events import PasswordConfirmationFailed
from app.auth.exceptions import WrongPassword
from app.auth.models import User
from app.auth.repositories.users import UserRepository
from app.auth.security.passwords import Left, PasswordHasher
from app.core.services.events import EventsServiceInterface


@dataclass(kw_only=True)
class CredentialService:
    """Checks passwords with no transaction held meanwhile: hashing takes long, and SQLite has one writer."""

    users: UserRepository
    hasher: PasswordHasher
    events: EventsServiceInterface
    left: Left | None = None

    async def hash(self, password: str, *, db: AsyncSession) -> str:
        """The hash of a new password; what was written through `db` so far is committed."""
        await self.users.commit(db=db)
        return await self.hasher.hash(password, left=self.left)

    async def check(self, user: User | None, *, db: AsyncSession, password: str) -> User | None:
        """The account, locked until the transaction ends, if the password is its own; as much work for None.

        The account is read again afterwards. Where it has another hash by then (its password was changed, or another
        login has made the hash anew), that one is what counts.
        """
        while True:
            stored = user.password_hash if user else None
            await self.users.commit(db=db)
            verified = await self.hasher.verify(password, stored, left=self.left)
            if user is None or not verified.ok:
                return None
            user = await self.users.get(db=db, for_update=True, id=user.id)
            if user is None or user.password_hash == stored:
                break
        if user and verified.new_hash:
            await self.users.update(db=db, model=user, data={"password_hash": verified.new_hash})
        return user

    async def confirm(self, user_id: int, *, db: AsyncSession, password: str) -> User:
        """The caller's own account, locked, before a sensitive change; WrongPassword otherwise."""
        user = await self.check(await self.users.get(db=db, id=user_id), db=db, password=password)
        if user is None:
            self.events.dispatch(PasswordConfirmationFailed(user_id=user_id, actor_id=user_id))
            await self.users.commit(db=db)  # before the refusal leaves: its error would roll this back
            raise WrongPassword
        return user
