"""What this module keeps about a user: the account, its roles, sessions and links, and the mails to its address."""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import UserRole
from app.auth.repositories import OneTimeTokenRepository, RoleRepository, SessionRepository, UserRepository
from app.core.db import BaseRepository
from app.core.services.mail import mail_principal
from app.core.services.personal_data import jobs_of
from app.core.services.queue import move_jobs

# What is shown; a column that is added is not until it is named here, as it may be a secret.
ACCOUNT = ("id", "email", "username", "status_id", "is_verified", "created_at", "updated_at", "deleted_at")
SESSION = ("device", "address", "created_at", "last_used_at", "expires_at", "scope", "revoked_at", "revoke_reason")
LINK = ("purpose", "email", "created_at", "expires_at", "used_at")


class AccountData:
    """Exports and erases an account."""

    users = UserRepository()
    roles = RoleRepository()
    sessions = SessionRepository()
    links = OneTimeTokenRepository()

    async def export(self, user_id: int, *, db: AsyncSession) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield the account, the mails to its address, its roles, sessions and links."""
        user = await self.users.require(db=db, id=user_id, with_deleted=True)
        yield "account", {name: getattr(user, name) for name in ACCOUNT}
        if user.password_hash:
            # Before, the address may have been somebody else's.
            async for mail in jobs_of(mail_principal(user.email), db=db, since=user.created_at):
                yield "mail", mail
        for role in await self.roles.grants(db=db, user_id=user_id):
            yield "role", role.model_dump(exclude={"granted_by_id"})
        async for session in self.sessions.stream(db=db, fields=SESSION, user_id=user_id):
            yield "session", session
        async for link in self.links.stream(db=db, fields=LINK, user_id=user_id):
            yield "link", link

    async def erase(self, user_id: int, *, db: AsyncSession) -> None:
        """Leave of the account its id, and delete the rest. Mails to its address become jobs of the user."""
        user = await self.users.require(db=db, id=user_id, for_update=True, with_deleted=True)
        if user.password_hash:
            await move_jobs(db=db, principal=mail_principal(user.email), to=f"user:{user_id}", since=user.created_at)
        for rows in (BaseRepository[UserRole](), self.sessions, self.links):
            await rows.delete_all(db=db, user_id=user_id)
        await self.users.erase(db=db, user=user)


personal_data = AccountData()
