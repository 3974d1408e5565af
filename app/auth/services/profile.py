"""What people do with their own account."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.service import Intent
from app.auth.events import PasswordChanged
from app.auth.models import User
from app.auth.repositories.users import UserRepository
from app.auth.schemas.profile import PasswordChange, ProfileUpdate
from app.auth.schemas.user import UserDTO
from app.auth.services.accounts import AccountService
from app.auth.services.credentials import CredentialService
from app.auth.tasks import SendEmailChange, SendVerification
from app.core.services.events import EventsServiceInterface
from app.core.services.queue import QueueServiceInterface


@dataclass(kw_only=True)
class ProfileService:
    """Changes and ends the caller's account."""

    users: UserRepository
    credentials: CredentialService
    accounts: AccountService
    queue: QueueServiceInterface
    events: EventsServiceInterface

    async def update(self, user_id: int, changes: ProfileUpdate, *, db: AsyncSession, session_id: int) -> UserDTO:
        """Change name and address. Where addresses must be verified a new one counts once it is."""
        user = await self._authorised(user_id, changes, db=db)
        await self.accounts.require_live(user_id, session_id, db=db)
        before = {"username": user.username, "email": user.email, "is_verified": user.is_verified}
        if changes.username is not None:
            await self.users.change(db=db, user=user, username=changes.username)
        if changes.email is not None and changes.email != user.email:
            await self._change_email(user, changes.email, db=db, session_id=session_id)
        await self.accounts.tell_changes(user, before, actor_id=user_id)
        await self.users.commit(db=db)
        return UserDTO.model_validate(user)

    async def change_password(self, user_id: int, data: PasswordChange, *, db: AsyncSession, session_id: int) -> None:
        """Set a new password, end the user's other sessions and make links useless, mailed or still queued."""
        current, new = data.current_password.get_secret_value(), data.new_password.get_secret_value()
        # First the new hash, then the check: what is confirmed stays locked until it is changed.
        new_hash = await self.credentials.hash(new, db=db)
        user = await self.credentials.confirm(user_id, db=db, password=current)
        await self.accounts.require_live(user_id, session_id, db=db)
        await self.accounts.set_password(user, new_hash, db=db, session_id=session_id)
        self.events.dispatch(PasswordChanged(user_id=user_id, actor_id=user_id))
        await self.users.commit(db=db)

    async def delete(self, user_id: int, *, db: AsyncSession, password: str, session_id: int) -> None:
        """End the account."""
        user = await self.credentials.confirm(user_id, db=db, password=password)
        await self.accounts.require_live(user_id, session_id, db=db)
        await self.accounts.delete(user, db=db, actor_id=user_id)
        await self.users.commit(db=db)

    async def _authorised(self, user_id: int, changes: ProfileUpdate, *, db: AsyncSession) -> User:
        """The account, locked; a new address needs the password."""
        if changes.email is not None and changes.current_password is not None:
            password = changes.current_password.get_secret_value()
            return await self.credentials.confirm(user_id, db=db, password=password)
        return await self.users.require(db=db, id=user_id, for_update=True)

    async def _change_email(self, user: User, email: str, *, db: AsyncSession, session_id: int) -> None:
        if self.accounts.verification_required:
            # Whether the address is taken is told to its owner by the mail, not to the caller.
            await self.accounts.tell_of_requested_move(user, email)
            data = {**Intent.of(user).data(), "email": email, "session_id": session_id}
            await self.queue.push(task=SendEmailChange, data=data)
        else:
            await self.accounts.move(user, email, db=db, session_id=session_id, is_verified=False)
            await self.queue.push(task=SendVerification, data=Intent.of(user).data())
