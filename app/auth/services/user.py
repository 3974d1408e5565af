"""Changes of accounts by their owners and by administrators."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.templates import EmailChangeRequested
from app.auth.events import PasswordChanged, UserCreated
from app.auth.exceptions import ActionNotAllowed, WeakPassword
from app.auth.models import ADMIN, User, UserStatus
from app.auth.schemas.auth import PasswordChange, ProfileUpdate
from app.auth.schemas.user import UserCreate, UserDTO, UserListParams, UserResponse, UserUpdate
from app.auth.services.accounts import AccountService, Actor, Caller, is_usable
from app.auth.tasks import SendEmailChange, SendVerification
from app.core.db import PaginatedResult


@dataclass(kw_only=True)
class ProfileService(AccountService):
    """Changes and deletes the caller's account."""

    async def update(self, caller: Caller, changes: ProfileUpdate, *, db: AsyncSession) -> UserDTO:
        """Change name and address. Where addresses must be verified a new one counts once it is."""
        if changes.email is not None and changes.current_password is not None:
            user = await self.confirm_password(caller, changes.current_password, db=db)
        else:
            user = await self.users.require(db=db, id=caller.user.id, for_update=True)
            await self.require_live(caller, db=db)
        before = {"username": user.username, "email": user.email, "is_verified": user.is_verified}
        if changes.username is not None:
            await self.users.change(db=db, user=user, username=changes.username)
        if changes.email is not None and changes.email != user.email:
            await self._change_email(user, changes.email, db=db, session_id=caller.session_id)
        await self.announce_changes(user, before, actor_id=user.id)
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    async def change_password(self, caller: Caller, data: PasswordChange, *, db: AsyncSession) -> None:
        """Set a new password, end the user's other sessions and make links useless, mailed or still queued."""
        if data.new_password == data.current_password:
            raise WeakPassword("password_unchanged", "This is the current one: choose another.", field="new_password")
        # First the new hash, then the check: what is confirmed stays locked until it is changed.
        owner = await self.require_live(caller, db=db)
        new_hash = await self.hash_password(data.new_password, db=db, owner=owner, field="new_password")
        user = await self.confirm_password(caller, data.current_password, db=db)
        await self.set_password(user, new_hash, db=db, session_id=caller.session_id)
        self.events.dispatch(PasswordChanged(user_id=user.id, actor_id=user.id))
        await self.users.commit(db=db)

    async def delete(self, caller: Caller, password: SecretStr, *, db: AsyncSession) -> None:
        """Delete the account."""
        user = await self.confirm_password(caller, password, db=db)
        await self.delete_account(user, db=db, actor_id=user.id)
        await self.users.commit(db=db)

    async def _change_email(self, user: User, email: str, *, db: AsyncSession, session_id: int) -> None:
        (await self.limits.mail("new address", email)).require()
        (await self.limits.mail("old address", user.email)).require()
        if self.config.verification_required:
            # Whether the address is taken is told to its owner by the mail, not to the caller. The present address
            # is told of the request: it may be a thief who asks.
            template = EmailChangeRequested(**self.links.greeting(user), new_email=email)
            await self.notify(user.email, "address", template)
            await self.queue_link(SendEmailChange, user, email=email, session_id=session_id)
        else:
            await self.change_email(user, email, db=db, session_id=session_id, is_verified=False)
            await self.queue_link(SendVerification, user)


@dataclass(kw_only=True)
class UserService(AccountService):
    """Lists, makes, changes and deletes accounts.

    Rights are checked once nothing is waited for any more: a hash or a lock takes time in which they may be taken.
    """

    async def get(self, user_id: int, *, db: AsyncSession) -> UserDTO:
        """Return one account; raises UserNotFound."""
        return UserDTO.model_validate(await self.users.require(db=db, id=user_id))

    async def get_list(self, params: UserListParams, *, db: AsyncSession) -> PaginatedResult[UserResponse]:
        """Return one page of the accounts."""
        return await self.users.get_list(db=db, params=params, into=UserResponse)

    async def create(self, data: UserCreate, *, db: AsyncSession, by: Actor, must_change: bool = False) -> UserDTO:
        """Make an account; raises WeakPassword, EmailTaken or UsernameTaken."""
        values = {"password_hash": await self.hash_password(data.password, db=db, owner=data)}
        actor_id = await self.authorise(by, db=db, roles=[ADMIN] if data.is_superuser else [])
        values |= data.model_dump(exclude={"password"})
        user = await self.users.add(db=db, password_change_required=must_change, **values)
        self.events.dispatch(UserCreated(**user.to_dict(), actor_id=actor_id))
        if user.is_superuser:
            await self.announce_role(user, ADMIN, is_granted=True, actor_id=actor_id)
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    async def update(self, user_id: int, changes: UserUpdate, *, db: AsyncSession, by: Actor) -> UserDTO:
        """Change an account. A new address ends its sessions, and is unverified unless the change says otherwise."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        values = changes.model_dump(exclude_unset=True)
        actor_id = await self.authorise(by, db=db, about=user.id, roles=[ADMIN] if values.get("is_superuser") else [])
        changes_email = values.get("email", user.email) != user.email
        if changes_email:
            self._require_another(user, actor_id)
            values.setdefault("is_verified", False)
        if self._takes_rights(values):
            await self.require_another_superuser(user, db=db)
        before = {name: getattr(user, name) for name in values}
        if changes_email:
            await self.change_email(user, db=db, session_id=by.principal.session_id if by else None, **values)
            await self.queue_link(SendVerification, user)
        else:
            await self.users.change(db=db, user=user, **values)
        await self.announce_changes(user, before, actor_id=actor_id)
        if not is_usable(user, self.config):
            await self.sessions.revoke(db=db, user_id=user.id, reason="account_disabled")
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    def _require_another(self, user: User, actor_id: int | None) -> None:
        """Refuse what the routes of one's own account ask the password for: the token may be stolen.

        Not to administrators: theirs could make another administrator anyway.
        """
        if user.id == actor_id and not user.is_superuser:
            raise ActionNotAllowed("Change your own address, and delete your own account, by /profile.")

    def _takes_rights(self, values: Mapping[str, Any]) -> bool:
        """Return True where a superuser with these values could no longer administer the service."""
        unverified = values.get("is_verified") is False and self.config.verification_required
        return unverified or values.get("is_superuser") is False or values.get("status_id") == UserStatus.DISABLED

    async def end_sessions(self, user_id: int, *, db: AsyncSession, by: Actor) -> int:
        """Log an account out everywhere, void its links, and return the number of sessions."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        actor_id = await self.authorise(by, db=db, about=user.id)
        ended = await self.end_every_session(user.id, db=db, actor_id=actor_id)
        await self.users.commit(db=db)
        return ended

    async def delete(self, user_id: int, *, db: AsyncSession, by: Actor) -> None:
        """Delete an account."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        actor_id = await self.authorise(by, db=db, about=user.id)
        self._require_another(user, actor_id)
        await self.delete_account(user, db=db, actor_id=actor_id)
        await self.users.commit(db=db)
