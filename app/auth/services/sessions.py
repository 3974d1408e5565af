"""Sessions: opened by a password, carried on by refresh tokens, ended."""

import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.templates import NewSignIn, SessionStolen
from app.auth.events import (
    LoggedOut,
    LoginFailed,
    LoginFailure,
    LoginSucceeded,
    RefreshTokenReused,
    RequestOrigin,
    SessionRevoked,
)
from app.auth.exceptions import InvalidGrant, InvalidScope, ReauthenticationRequired, SessionNotFound
from app.auth.metrics import logins
from app.auth.models import AuthSession, EndReason, User
from app.auth.repositories import DEVICE_MEMORY, Family, RefreshTokenRepository
from app.auth.schemas.auth import LoginAnswer, LoginForm, SessionRead, TokenAnswer
from app.auth.security.devices import new_device_token, read_device_token
from app.auth.security.identity import network_of
from app.auth.security.tokens import new_token, successor, token_hash
from app.auth.services.accounts import AccountService, Caller, is_usable
from app.auth.services.throttling import login_key
from app.core.db import db_now, utcnow
from app.core.deps import logger

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")

_OWN_ENDS = (None, "logout", "too_many")
"""Ends that leave a device known; a session ended by a remedy may have been a thief's."""

RECENT_LOGIN = timedelta(minutes=15)
"""Age up to which a login may end other sessions without the password."""

REFRESH_GRACE = timedelta(seconds=10)
"""A rotated token still answers with its successor for this long: a lost answer or two tabs are no theft.

It is judged by the moment a request arrived, as if it had been served at once: a slow service ends no session.
"""


@dataclass(kw_only=True)
class SessionService(AccountService):
    """Opens, refreshes, lists and ends sessions."""

    keys: Sequence[SecretStr]
    origin: RequestOrigin
    refresh_tokens = RefreshTokenRepository()

    async def login(self, form: LoginForm, *, db: AsyncSession) -> LoginAnswer:
        """Return the tokens of a new session; raises InvalidGrant, the same after the same work for every refusal.

        Raises RateLimitedError before any look-up: how long that takes would tell of an account; InvalidScope once the
        password is proven: what an account holds is told to its owner alone.
        """
        device = await self._known_device(form, db=db)
        async with self.limits.login(form.username, device):
            return await self._login(form, db=db, is_known=device is not None)

    async def _known_device(self, form: LoginForm, *, db: AsyncSession) -> str | None:
        """Return the nonce of a device that logged in to this very account, and lost no right to it since."""
        token = form.device_token.get_secret_value() if form.device_token else ""
        if (device := read_device_token(token, keys=self.keys)) is None:
            return None
        owner = await self.users.get(db=db, id=device.user_id)
        if owner is None or owner.security_stamp != device.stamp:
            return None
        return device.nonce if login_key(form.username) in (owner.email_key, owner.username_key) else None

    async def _login(self, form: LoginForm, *, db: AsyncSession, is_known: bool) -> LoginAnswer:
        found = await self.users.find_by_login(db=db, login=form.username)
        user = await self.check_password(found, db=db, password=form.password.get_secret_value())
        # An unverified account is refused like an unknown one: otherwise whoever registers an address could log in to
        # learn whether it was free.
        if user is None or not is_usable(user, self.config):
            known: LoginFailure = "account_not_active" if user else "wrong_password"
            await self._tell_refusal(found, known if found else "unknown_account", db=db)
            raise InvalidGrant("The user name or the password is wrong, or the account cannot be used.")
        user.verify_until = None  # in use: it stays, whatever verification becomes
        (holder,) = await self.users.get_by_ids(db=db, ids=[user.id])
        try:
            scope = _narrowed(form.scope, holder.permissions)
        except InvalidScope:
            await self._tell_refusal(user, "invalid_scope", db=db)
            raise
        if user.is_verified and not is_known and await self._is_new_origin(user, db=db):
            network, time = network_of(self.origin.address or ""), f"{utcnow():%Y-%m-%d %H:%M} UTC"
            greeting, url = self.links.greeting(user), self.links.page("forgot-password")
            await self.notify(user.email, "account", NewSignIn(**greeting, time=time, network=network, url=url))
        answer = await self._open(user, scope, holder.roles, db=db)
        await self.users.commit(db=db)
        logins.inc("succeeded")
        device_token = new_device_token(user.id, user.security_stamp, key=self.keys[0])
        return LoginAnswer(**answer.model_dump(), device_token=device_token)

    async def _tell_refusal(self, user: User | None, reason: LoginFailure, *, db: AsyncSession) -> None:
        logins.inc(reason)
        self.events.dispatch(LoginFailed(user_id=user.id if user else None, reason=reason))
        await self.users.commit(db=db)  # before the refusal leaves: its error would roll this back

    async def refresh(self, token: str, *, db: AsyncSession, arrived_at: datetime) -> TokenAnswer:
        """Return the next tokens of a session. A token that was already exchanged ends its whole family."""
        await db.connection()  # SQLite waits for its lock here
        waited = utcnow() - arrived_at
        family = await self.refresh_tokens.lock_family(db=db, token_hash=token_hash(token))
        if family is None or not self._is_live(family):
            raise InvalidGrant("The refresh token is not valid.")
        await self.limits.refresh(family.session.id)
        salt = family.token.salt
        followers = [successor(token, salt=salt, secret=key.get_secret_value().encode()) for key in self.keys]
        follower: str | None = followers[0]
        if family.token.rotated_at is None:
            await self._rotate(family, followers[0], db=db)
        else:
            follower = await self._in_grace(family.token.rotated_at, family.now - waited, followers, db=db)
        if follower is None:
            await self._end_family(family, db=db)
            raise InvalidGrant("The refresh token is not valid.")
        (holder,) = await self.users.get_by_ids(db=db, ids=[family.user.id])
        answer = self._answer(family.session, follower, holder.roles, family.now)
        await self.sessions.commit(db=db)
        return answer

    async def get_list(self, user_id: int, *, db: AsyncSession, current_id: int | None) -> list[SessionRead]:
        """Return the live sessions of an account; `current_id` marks the caller's. Raises UserNotFound."""
        await self.users.require(db=db, id=user_id)
        rows = await self.sessions.get_live(db=db, user_id=user_id, idle_days=self.config.SESSION_IDLE_DAYS)
        return [SessionRead.model_validate({**row.to_dict(), "is_current": row.id == current_id}) for row in rows]

    async def logout(self, caller: Caller, *, db: AsyncSession) -> None:
        """End the caller's session; raises SessionNotFound where it has ended meanwhile."""
        user_id = caller.user.id
        ended = LoggedOut(user_id=user_id, actor_id=user_id, session_id=caller.session_id)
        await self._end(ended, "logout", db=db)

    async def end(self, caller: Caller, session_id: int, password: SecretStr | None, *, db: AsyncSession) -> None:
        """End one of the caller's live sessions; raises SessionNotFound.

        Another one than that of the request needs a recent login or the password: ReauthenticationRequired.
        """
        user_id = caller.user.id
        if session_id != caller.session_id:
            await self.reauthenticate(caller, password, db=db)
        # Of this and a link that the session asked for, the first to commit counts.
        await self.users.get(db=db, for_update=True, id=user_id)
        ended = SessionRevoked(user_id=user_id, actor_id=user_id, session_id=session_id)
        await self._end(ended, "revoked", db=db)

    async def end_all(self, caller: Caller, password: SecretStr | None, *, db: AsyncSession) -> None:
        """Log the caller out everywhere; links that were asked for before are void. Raises ReauthenticationRequired."""
        await self.reauthenticate(caller, password, db=db)
        await self.end_every_session(caller.user.id, db=db, actor_id=caller.user.id, reason="logout")
        await self.sessions.commit(db=db)

    async def reauthenticate(self, caller: Caller, password: SecretStr | None, *, db: AsyncSession) -> None:
        """Refuse a caller who neither logged in lately nor gives the password (ASVS 7.5.2): a token may be stolen."""
        if password is not None:
            await self.confirm_password(caller, password, db=db)
        elif not await self.sessions.is_recent(db=db, session_id=caller.session_id, within=RECENT_LOGIN):
            raise ReauthenticationRequired

    async def _end(self, ended: LoggedOut | SessionRevoked, reason: EndReason, *, db: AsyncSession) -> None:
        which = {"user_id": ended.user_id, "session_id": ended.session_id}
        if not await self.sessions.revoke(db=db, reason=reason, **which):
            raise SessionNotFound
        self.events.dispatch(ended)
        await self.sessions.commit(db=db)

    async def _open(self, user: User, scope: str | None, roles: Collection[str], *, db: AsyncSession) -> TokenAnswer:
        origin = {"device": self.origin.user_agent or "unknown", "address": self.origin.address or "unknown"}
        ends = utcnow() + timedelta(days=self.config.REFRESH_TOKEN_EXPIRE_DAYS)
        data = {"user_id": user.id, **origin, "scope": scope, "expires_at": ends}
        session = await self.sessions.create(db=db, data=data)
        token = new_token()
        await self._store(token, db=db, session=session)
        most = self.config.MAX_SESSIONS_PER_USER
        for ended in await self.sessions.revoke(db=db, user_id=user.id, beyond=most, reason="too_many"):
            event = SessionRevoked(user_id=user.id, actor_id=user.id, session_id=ended, reason="too_many")
            self.events.dispatch(event)
        self.events.dispatch(LoginSucceeded(user_id=user.id, actor_id=user.id, session_id=session.id))
        return self._answer(session, token, roles, session.last_used_at)

    async def _is_new_origin(self, user: User, *, db: AsyncSession) -> bool:
        """Return True where no login of late came from this device and network; the very first one is not new."""
        origins = await self.sessions.get_origins(db=db, user_id=user.id)
        known = {(device, network_of(address)) for device, address, reason in origins if reason in _OWN_ENDS}
        here = self.origin.user_agent or "unknown", network_of(self.origin.address or "")
        is_first = not origins and user.created_at > utcnow() - DEVICE_MEMORY
        return here not in known and not is_first

    def _is_live(self, family: Family) -> bool:
        session = family.session
        usable = is_usable(family.user, self.config) and session.revoked_at is None
        idle_at = session.last_used_at + timedelta(days=self.config.SESSION_IDLE_DAYS)
        return usable and session.expires_at > family.now < idle_at

    async def _rotate(self, family: Family, follower: str, *, db: AsyncSession) -> None:
        await self.refresh_tokens.update(db=db, model=family.token, data={"rotated_at": db_now()})
        await self.sessions.update(db=db, model=family.session, data={"last_used_at": db_now()})
        await self._store(follower, db=db, session=family.session)

    async def _in_grace(
        self, rotated_at: datetime, arrived_at: datetime, followers: Sequence[str], *, db: AsyncSession
    ) -> str | None:
        """Return the successor where the token, on arrival, had just been rotated and that one not been used yet.

        Another process, with another key of the ring, may have made it.
        """
        if arrived_at > rotated_at + REFRESH_GRACE:
            return None
        for follower in followers:
            if found := await self.refresh_tokens.get(db=db, token_hash=token_hash(follower)):
                return follower if found.rotated_at is None or found.rotated_at > arrived_at else None
        return None

    async def _end_family(self, family: Family, *, db: AsyncSession) -> None:
        session = family.session
        await self.sessions.revoke(db=db, user_id=session.user_id, session_id=session.id, reason="token_reused")
        self.events.dispatch(RefreshTokenReused(user_id=session.user_id, session_id=session.id))
        if family.user.is_verified:
            notice = SessionStolen(**self.links.greeting(family.user), url=self.links.page("forgot-password"))
            await self.notify(family.user.email, "account", notice)
        await self.sessions.commit(db=db)  # before the refusal leaves: its error would roll this back
        await logger.a_warning("refresh token reused, session ended", user_id=session.user_id, session_id=session.id)

    async def _store(self, token: str, *, db: AsyncSession, session: AuthSession) -> None:
        secret = {"token_hash": token_hash(token), "salt": secrets.token_hex(16)}
        data = {"session_id": session.id, "expires_at": session.expires_at, **secret}
        await self.refresh_tokens.create(db=db, data=data)

    def _answer(self, session: AuthSession, refresh_token: str, roles: Collection[str], now: datetime) -> TokenAnswer:
        access_token, seconds = self.config.access_tokens.issue(
            user_id=session.user_id,
            session_id=session.id,
            session_ends=session.expires_at,
            now=now,
            roles=roles if session.scope is None else (),
            scope=session.scope,
        )
        return TokenAnswer(
            access_token=access_token, refresh_token=refresh_token, expires_in=seconds, scope=session.scope
        )


def _narrowed(scope: str, held: frozenset[str]) -> str | None:
    """Return what is held of a requested scope (RFC 6749 section 3.3), None where none was; raises InvalidScope."""
    if not scope:
        return None
    granted = held.intersection(scope.split(" "))
    if not granted or not _SCOPE.fullmatch(scope):
        raise InvalidScope
    return " ".join(sorted(granted))
