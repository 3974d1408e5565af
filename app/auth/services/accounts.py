"""Rules about passwords and accounts that the other services share, and what `kit` and the first start do."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig, get_auth_config
from app.auth.emails.service import Links
from app.auth.emails.templates import EmailChanged, PasswordReplaced, SuperuserGranted
from app.auth.events import (
    EmailAddressChanged,
    LoggedOutEverywhere,
    PasswordConfirmationFailed,
    PasswordResetCompleted,
    RoleGranted,
    RoleRevoked,
    SuperuserChanged,
    UserDeleted,
    UserStatusChanged,
    UserUpdated,
)
from app.auth.exceptions import (
    AccountNotActive,
    ActionNotAllowed,
    EmailTaken,
    InvalidAccessToken,
    LastSuperuser,
    SessionRequired,
    UsernameTaken,
    WeakPassword,
    WrongPassword,
)
from app.auth.models import ADMIN, EndReason, User, UserStatus
from app.auth.repositories import SessionRepository, UserRepository
from app.auth.schemas.auth import Registration
from app.auth.schemas.user import UserCreate, UserDTO
from app.auth.security.identity import SERVICE_DOMAIN
from app.auth.security.passwords import Disconnected
from app.auth.services.throttling import AccountLimits
from app.auth.tasks import LinkTask
from app.core.configs import get_settings
from app.core.db import session_scope, utcnow
from app.core.exceptions import AuthenticationError
from app.core.identity import Principal, asked_roles
from app.core.services.events import EventsServiceInterface
from app.core.services.events.interface import current_events
from app.core.services.mail import BaseTemplate, EmailData, MailServiceInterface, mail_principal
from app.core.services.mail.interface import current_mail
from app.core.services.queue import QueueServiceInterface, move_jobs
from app.core.services.queue.interface import current_queue

Owner: TypeAlias = User | UserDTO | UserCreate | Registration


def is_usable(user: User | UserDTO, config: AuthConfig) -> bool:
    """Return True where the owner may log in and act: not disabled, and verified where that is required."""
    return user.status_id == UserStatus.ACTIVE and (user.is_verified or not config.verification_required)


class Caller(NamedTuple):
    """A person who has logged in, and the session."""

    user: UserDTO
    session_id: int


class Administrator(NamedTuple):
    """An administrator, with what to ask when the change takes effect: who they are by then, and whether they may."""

    principal: Principal
    again: Callable[[AsyncSession], Awaitable[Principal | None]]
    may_write: Callable[[UserDTO], Awaitable[None]]


Actor: TypeAlias = Administrator | None
"""Who changes accounts or roles: None is an operator, who may do everything."""


@dataclass(kw_only=True)
class AccountService:
    """Checks passwords, and changes accounts for owners, administrators and operators. The other services extend it.

    The caller commits. Passwords are hashed with no transaction open, as it takes long and SQLite has
    one writer: `hash_password` and `check_password` commit first.
    """

    config: AuthConfig
    events: EventsServiceInterface
    mail: MailServiceInterface
    links: Links
    queue: QueueServiceInterface
    disconnected: Disconnected | None = None
    limits: AccountLimits = field(default_factory=AccountLimits)
    users = UserRepository()
    sessions = SessionRepository()

    async def hash_password(self, new: SecretStr, *, db: AsyncSession, owner: Owner, field: str = "password") -> str:
        """Hash a new password of `owner`; raises WeakPassword. Commits what was written through `db` so far."""
        password = new.get_secret_value()
        if fault := self.config.password_policy.fault(password, email=owner.email, username=owner.username):
            raise WeakPassword(*fault, field=field)
        await self.users.commit(db=db)
        return await self.config.password_hasher.hash(password, disconnected=self.disconnected)

    async def check_password(self, user: User | None, *, db: AsyncSession, password: str) -> User | None:
        """Return the account, locked until the transaction ends, if the password is its own; as much work for None.

        The account is read again afterwards. Where it has another hash by then (its password was changed, or another
        login has made the hash anew), that one is what counts.
        """
        while True:
            stored = user.password_hash if user else None
            await self.users.commit(db=db)
            verified = await self.config.password_hasher.verify(password, stored, disconnected=self.disconnected)
            if user is None or not verified.ok:
                return None
            user = await self.users.get(db=db, for_update=True, id=user.id)
            if user is None or user.password_hash == stored:
                break
        if user and verified.new_hash:
            await self.users.update(db=db, model=user, data={"password_hash": verified.new_hash})
        return user

    async def confirm_password(self, caller: Caller, password: SecretStr, *, db: AsyncSession) -> User:
        """Return the caller's own account, locked, before a sensitive change; raises WrongPassword.

        Raises as `require_live`, too: the session may have ended meanwhile.
        """
        user_id = caller.user.id
        async with self.limits.confirmation(user_id):
            owner = await self.users.get(db=db, id=user_id)
            user = await self.check_password(owner, db=db, password=password.get_secret_value())
            if user is None:
                self.events.dispatch(PasswordConfirmationFailed(user_id=user_id, actor_id=user_id))
                await self.users.commit(db=db)  # before the refusal leaves: its error would roll this back
                raise WrongPassword
        await self.require_live(caller, db=db)
        return user

    async def require_live(self, caller: Caller, *, db: AsyncSession) -> UserDTO:
        """Return the caller as of now: session or rights may have ended while the request waited for a hash or a lock.

        Raises InvalidAccessToken or AccountNotActive, as at the start of a request.
        """
        principal = await self.users.principal(db=db, user_id=caller.user.id, session_id=caller.session_id)
        if principal is None:
            raise InvalidAccessToken
        return self.require_usable(principal)

    def require_usable(self, principal: Principal) -> UserDTO:
        """Return the user of a caller; raises AccountNotActive."""
        user: UserDTO = principal.user
        if not is_usable(user, self.config):
            raise AccountNotActive
        return user

    async def authorise(
        self,
        by: Actor,
        *,
        db: AsyncSession,
        about: int | None = None,
        permissions: Collection[str] = (),
        roles: Collection[str] = (),
    ) -> int | None:
        """Judge the administrator as of now: nobody grants, or changes an account with, what they do not hold.

        `about` is the id of the account, `permissions` and `roles` are what it or a role is given. Returns the id of
        the administrator's account.
        """
        if by is None:
            return None
        principal = await by.again(db)
        if principal is None:
            raise AuthenticationError
        actor = self.require_usable(principal)
        await by.may_write(actor)
        needed, roles = set(permissions), set(roles)  # undeclared ones too: they count once they are declared again
        for other in await self.users.get_by_ids(db=db, ids=[about] if about else []):
            needed, roles = needed | other.permissions, roles | other.roles
        if actor.is_admin:
            return actor.id
        lacking = sorted(needed - actor.permissions)
        lacking += [f"role:{name}" for name in sorted(roles & {ADMIN, *asked_roles} - actor.roles)]
        if lacking:
            raise ActionNotAllowed("The account, or what is to be given, holds more than you do.", missing=lacking[0])
        if by.principal.scope is not None and about == actor.id:
            raise SessionRequired  # by another address of the account it would become all that the account is
        return actor.id

    async def delete_account(self, user: User, *, db: AsyncSession, actor_id: int | None) -> None:
        """Mark the locked account as deleted, end its sessions and tell the listeners."""
        await self.require_another_superuser(user, db=db)
        await self.users.change(db=db, user=user, deleted_at=utcnow())
        await self.sessions.revoke(db=db, user_id=user.id, reason="account_deleted")
        self.events.dispatch(UserDeleted(**user.to_dict(), actor_id=actor_id))

    async def end_every_session(
        self, user_id: int, *, db: AsyncSession, actor_id: int | None, reason: EndReason = "revoked"
    ) -> int:
        """End the sessions of an account, void its links, tell the listeners, and return the number of sessions."""
        await self.users.raise_stamp(db=db, user_id=user_id)
        ended = await self.sessions.revoke(db=db, user_id=user_id, reason=reason)
        self.events.dispatch(LoggedOutEverywhere(user_id=user_id, actor_id=actor_id))
        return len(ended)

    async def announce_changes(self, user: User, before: Mapping[str, Any], *, actor_id: int | None) -> None:
        """Dispatch events for the columns in `before` that are different now."""
        fields = tuple(name for name, value in before.items() if getattr(user, name) != value)
        about: dict[str, Any] = {"user_id": user.id, "actor_id": actor_id}
        if fields:
            self.events.dispatch(UserUpdated(fields=fields, **about))
        if "email" in fields:
            self.events.dispatch(EmailAddressChanged(**about))
        if "status_id" in fields:
            self.events.dispatch(UserStatusChanged(status_id=user.status_id, **about))
        if "is_superuser" in fields:
            await self.announce_role(user, ADMIN, is_granted=user.is_superuser, actor_id=actor_id)

    async def announce_role(self, user: User, role: str, *, is_granted: bool, actor_id: int | None) -> None:
        """Dispatch events for a role that was granted or revoked; a new administrator is told by mail."""
        about: dict[str, Any] = {"user_id": user.id, "actor_id": actor_id}
        self.events.dispatch((RoleGranted if is_granted else RoleRevoked)(role=role, **about))
        if role != ADMIN:
            return
        self.events.dispatch(SuperuserChanged(is_superuser=is_granted, **about))
        if is_granted:
            await self.notify(user.email, "account", SuperuserGranted(**self.links.greeting(user)))

    async def require_another_superuser(self, user: User, *, db: AsyncSession) -> None:
        """Raise LastSuperuser where nobody could administer the service without `user`, whose row is locked."""
        only_verified = self.config.verification_required
        if user.id not in await self.users.active_admins(db=db, only_verified=only_verified):
            return
        await self.users.lock_admins(db=db)
        if list(await self.users.active_admins(db=db, only_verified=only_verified)) == [user.id]:
            raise LastSuperuser

    async def change_email(
        self, user: User, email: str, *, db: AsyncSession, session_id: int | None, **values: Any
    ) -> None:
        """Give the locked account another address, tell the present one, and end all sessions but `session_id`."""
        await self.notify(user.email, "address", EmailChanged(**self.links.greeting(user), new_email=email))
        mails = mail_principal(user.email)  # that erasure would miss
        await move_jobs(db=db, principal=mails, to=f"user:{user.id}", since=user.created_at)
        await self.users.change(db=db, user=user, email=email, **values)
        await self.sessions.revoke(db=db, user_id=user.id, but=session_id, reason="email_changed")

    async def set_password(
        self, user: User, password_hash: str, *, db: AsyncSession, session_id: int | None = None, **values: Any
    ) -> None:
        """Give the locked account another password, tell its address, and end all sessions but `session_id`."""
        values = {"password_change_required": False, **values}
        await self.users.change(db=db, user=user, password_hash=password_hash, **values)
        await self.sessions.revoke(db=db, user_id=user.id, but=session_id, reason="password_changed")
        template = PasswordReplaced(**self.links.greeting(user), url=self.links.page("forgot-password"))
        await self.notify(user.email, "password", template)

    async def queue_link(self, task: type[LinkTask], user: User | None, **request: Any) -> None:
        """Have a link mailed to the account as it is now; nothing for None."""
        about = {"user_id": user.id, "stamp": user.security_stamp} if user else {"user_id": None, "stamp": 0}
        await self.queue.push(task=task, data={**about, **request})

    async def notify(self, email: str, about: str, template: BaseTemplate) -> None:
        """Queue a mail about "your `about`"; the account of a machine has no mailbox."""
        if email.endswith(f"@{SERVICE_DOMAIN}"):
            return
        data = EmailData(subject=f"Your {about} at {self.links.project}", recipients=[email])
        await self.mail.queue(template, data)


S = TypeVar("S", bound=AccountService)


class CreatedAdmin(NamedTuple):
    """The account just made; `password` only where it was generated, `weakness` of the one that was given."""

    email: str
    password: str | None
    weakness: str | None = None


class NoFirstUser(Exception):
    """Nobody can administer the service, and settings must change first; the message says which."""


async def ensure_first_user() -> CreatedAdmin | None:
    """Make the first superuser, or return None where there is one already.

    Safe with several processes at once: one of them makes the account. No event is dispatched: nobody registered.
    Raises NoFirstUser where it cannot be made: outside `local` and `testing` no password is generated, as it would
    end up in a log, and the given one may at most be short; the address or the name may be somebody else's.
    """
    config, users, is_relaxed = get_auth_config(), UserRepository(), get_settings().is_relaxed
    async with session_scope(read_only=True) as db:
        if await users.has_admin(db=db):
            return None
    given = config.FIRST_USER_PASSWORD
    if given is None and not is_relaxed:
        raise NoFirstUser("There is no administrator yet: set FIRST_USER_EMAIL and FIRST_USER_PASSWORD")
    password = given.get_secret_value() if given else config.password_policy.generate()
    names = {"email": config.FIRST_USER_EMAIL, "username": config.FIRST_USER_USERNAME}
    kind, weakness = config.password_policy.fault(password, **names) or ("", None)
    if kind == "password_too_long" or (weakness and kind != "password_too_short" and not is_relaxed):
        raise NoFirstUser(f"There is no administrator yet: change FIRST_USER_PASSWORD. {weakness}")
    password_hash = await config.password_hasher.hash(password)
    must_change = bool(weakness) and not is_relaxed
    flags: dict[str, Any] = {"is_verified": True, "is_superuser": True, "password_change_required": must_change}
    async with session_scope() as db:
        await users.lock_admins(db=db)
        if await users.has_admin(db=db):
            return None
        try:
            await users.add(db=db, **names, password_hash=password_hash, **flags)
        except (EmailTaken, UsernameTaken) as exc:
            setting = "FIRST_USER_EMAIL" if isinstance(exc, EmailTaken) else "FIRST_USER_USERNAME"
            raise NoFirstUser(f"There is no administrator yet, and {setting} belongs to another account") from exc
    return CreatedAdmin(config.FIRST_USER_EMAIL, None if given else password, weakness)


async def reset_password(login: str, password: SecretStr, *, must_change: bool = False) -> UserDTO:
    """Set the password of the account `login` names, as a mailed link would; raises UserNotFound or WeakPassword."""
    users, accounts = UserRepository(), operator_service(AccountService)
    async with session_scope() as db:
        found = await users.find_by_login(db=db, login=login)
        owner = await users.require(db=db, id=found.id if found else 0)
        password_hash = await accounts.hash_password(password, db=db, owner=owner)
        user = await users.require(db=db, id=owner.id, for_update=True)
        await accounts.set_password(user, password_hash, db=db, password_change_required=must_change)
        current_events().dispatch(PasswordResetCompleted(user_id=user.id))
        return UserDTO.model_validate(user)


def operator_service(kind: type[S]) -> S:
    """Return a service for changes without a request, by `kit`."""
    return kind(
        config=get_auth_config(),
        events=current_events(),
        mail=current_mail(),
        links=Links(get_settings()),
        queue=current_queue(),
    )
