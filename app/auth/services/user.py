"""Changes of accounts by their owners and by administrators."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.service import LinkRequest
from app.auth.emails.templates import EmailChangeRequested
from app.auth.events import PasswordChanged
from app.auth.exceptions import ActionNotAllowed, WeakPassword
from app.auth.models import ADMIN, EndReason, User, UserStatus
from app.auth.schemas.auth import PasswordChange, ProfileUpdate
from app.auth.schemas.user import UserCreate, UserDTO, UserListParams, UserResponse, UserUpdate
from app.auth.services.accounts import AccountService, Administrator, is_usable
from app.auth.tasks import SendEmailChange, SendVerification
from app.core.db import PaginatedResult
from app.core.services.queue import QueueServiceInterface


@dataclass(kw_only=True)
class ProfileService(AccountService):
    """Changes and deletes the caller's account."""

    queue: QueueServiceInterface

    async def update(self, user_id: int, changes: ProfileUpdate, *, db: AsyncSession, session_id: int) -> UserDTO:
        """Change name and address. Where addresses must be verified a new one counts once it is."""
        user = await self._authorised(user_id, changes, db=db)
        await self.require_live(user_id, session_id, db=db)
        before = {"username": user.username, "email": user.email, "is_verified": user.is_verified}
        if changes.username is not None:
            await self.users.change(db=db, user=user, username=changes.username)
        if changes.email is not None and changes.email != user.email:
            await self._change_email(user, changes.email, db=db, session_id=session_id)
        await self.announce_changes(user, before, actor_id=user_id)
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    async def change_password(self, user_id: int, data: PasswordChange, *, db: AsyncSession, session_id: int) -> None:
        """Set a new password, end the user's other sessions and make links useless, mailed or still queued."""
        if data.new_password == data.current_password:
            raise WeakPassword("password_unchanged", "This is the current one: choose another.", field="new_password")
        # First the new hash, then the check: what is confirmed stays locked until it is changed.
        owner = await self.require_live(user_id, session_id, db=db)
        new_hash = await self.hash_password(data.new_password, db=db, owner=owner, field="new_password")
        user = await self.confirm_password(user_id, db=db, password=data.current_password.get_secret_value())
        await self.require_live(user_id, session_id, db=db)
        await self.set_password(user, new_hash, db=db, session_id=session_id)
        self.events.dispatch(PasswordChanged(user_id=user_id, actor_id=user_id))
        await self.users.commit(db=db)

    async def delete(self, user_id: int, *, db: AsyncSession, password: str, session_id: int) -> None:
        """Delete the account."""
        user = await self.confirm_password(user_id, db=db, password=password)
        await self.require_live(user_id, session_id, db=db)
        await self.delete_account(user, db=db, actor_id=user_id)
        await self.users.commit(db=db)

    async def _authorised(self, user_id: int, changes: ProfileUpdate, *, db: AsyncSession) -> User:
        """Return the account, locked; a new address needs the password."""
        if changes.email is not None and changes.current_password is not None:
            password = changes.current_password.get_secret_value()
            return await self.confirm_password(user_id, db=db, password=password)
        return await self.users.require(db=db, id=user_id, for_update=True)

    async def _change_email(self, user: User, email: str, *, db: AsyncSession, session_id: int) -> None:
        (await self.limits.mail("new address", email)).require()
        (await self.limits.mail("old address", user.email)).require()
        if self.config.verification_required:
            # Whether the address is taken is told to its owner by the mail, not to the caller. The present address
            # is told of the request: it may be a thief who asks.
            template = EmailChangeRequested(**self.links.greeting(user), new_email=email)
            await self.notify(user.email, "address", template)
            data = {**LinkRequest.of(user).data(), "email": email, "session_id": session_id}
            await self.queue.push(task=SendEmailChange, data=data)
        else:
            await self.change_email(user, email, db=db, session_id=session_id, is_verified=False)
            await self.queue.push(task=SendVerification, data=LinkRequest.of(user).data())


@dataclass(kw_only=True)
class UserService(AccountService):
    """Lists, makes, changes and deletes accounts.

    Rights are checked once nothing is waited for any more: a hash or a lock takes time in which they may be taken.
    """

    queue: QueueServiceInterface

    async def get(self, user_id: int, *, db: AsyncSession) -> UserDTO:
        """Return one account; raises UserNotFound."""
        return UserDTO.model_validate(await self.users.require(db=db, id=user_id))

    async def get_list(self, params: UserListParams, *, db: AsyncSession) -> PaginatedResult[UserResponse]:
        """Return one page of the accounts."""
        return await self.users.get_list(db=db, params=params, into=UserResponse)

    async def create(self, data: UserCreate, *, db: AsyncSession, by: Administrator) -> UserDTO:
        """Make an account; raises EmailTaken or UsernameTaken."""
        password_hash = await self.hash_password(data.password, db=db, owner=data)
        await self.authorise(by, db=db, roles=[ADMIN] if data.is_superuser else [])
        user = await self.make_account(data, password_hash, db=db, actor_id=by.user_id)
        await self.users.commit(db=db)
        return user

    async def update(self, user_id: int, changes: UserUpdate, *, db: AsyncSession, by: Administrator) -> UserDTO:
        """Change an account. A new address ends its sessions, and is unverified unless the change says otherwise."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        values = changes.model_dump(exclude_unset=True)
        await self.authorise(by, db=db, about=user.id, roles=[ADMIN] if values.get("is_superuser") else [])
        changes_email = values.get("email", user.email) != user.email
        if changes_email:
            self._require_another(user, by)
            values.setdefault("is_verified", False)
        if self._takes_rights(values):
            await self.require_another_superuser(user, db=db)
        before = {name: getattr(user, name) for name in values}
        if changes_email:
            await self.change_email(user, db=db, session_id=by.principal.session_id, **values)
            await self.queue.push(task=SendVerification, data=LinkRequest.of(user).data())
        else:
            await self.users.change(db=db, user=user, **values)
        await self.announce_changes(user, before, actor_id=by.user_id)
        if not is_usable(user, self.config):
            await self.sessions.revoke(db=db, user_id=user.id, reason=EndReason.ACCOUNT_DISABLED)
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    def _require_another(self, user: User, by: Administrator) -> None:
        """Refuse what the routes of one's own account ask the password for: the token may be stolen.

        Not to administrators: theirs could make another administrator anyway.
        """
        if user.id == by.user_id and not user.is_superuser:
            raise ActionNotAllowed("Change your own address, and delete your own account, by /profile.")

    def _takes_rights(self, values: Mapping[str, Any]) -> bool:
        """Return True where a superuser with these values could no longer administer the service."""
        unverified = values.get("is_verified") is False and self.config.verification_required
        return unverified or values.get("is_superuser") is False or values.get("status_id") == UserStatus.DISABLED

    async def end_sessions(self, user_id: int, *, db: AsyncSession, by: Administrator) -> None:
        """Log an account out everywhere; links that were asked for before are void."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        await self.authorise(by, db=db, about=user.id)
        await self.end_every_session(user.id, db=db, actor_id=by.user_id)
        await self.users.commit(db=db)

    async def delete(self, user_id: int, *, db: AsyncSession, by: Administrator) -> None:
        """Delete an account."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        await self.authorise(by, db=db, about=user.id)
        self._require_another(user, by)
        await self.delete_account(user, db=db, actor_id=by.user_id)
        await self.users.commit(db=db)
