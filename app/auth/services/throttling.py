"""Limits for each account, session and mailbox, from wherever the requests come."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from app.auth.security.identity import email_key, username_key
from app.core.api.sliding_windows import Verdict
from app.core.api.throttle import Throttle
from app.core.exceptions import UnavailableError

MailKind = Literal["registration", "verification", "reset", "new address", "old address"]

# An account has two names to log in with, so its password is checked ten times in 15 minutes at most.
LOGINS = Throttle("logins", (3, 30), (4, 2 * 60), (5, 15 * 60))
CONFIRMATIONS = Throttle("confirmations", (10, 15 * 60))
REFRESHES = Throttle("refreshes", (30, 60))
MAILS = Throttle("mails", (3, 60 * 60))


@dataclass(frozen=True)
class AccountLimits:
    """Counts guesses and mails. Names and addresses without an account count alike: a limit tells of none."""

    enabled: bool = True

    def login(self, name: str, device: str | None) -> AbstractAsyncContextManager[None]:
        """Count a login under the name as typed, in its normal form; a known device has an allowance of its own.

        Not for the account: a count that its address and its name share would tell that they belong together.
        """
        return self._guess(LOGINS, f"device {device}" if device else login_key(name))

    def confirmation(self, user_id: int) -> AbstractAsyncContextManager[None]:
        """Count a confirmation of the user's current password."""
        return self._guess(CONFIRMATIONS, str(user_id))

    async def refresh(self, session_id: int) -> None:
        """Count a refresh of the session; raises RateLimitedError."""
        if self.enabled:
            (await REFRESHES.count(str(session_id))).require()

    async def mail(self, kind: MailKind, mailbox: str) -> Verdict:
        """Count a mail that somebody asks for; the fourth of a kind to one mailbox in an hour is not admitted."""
        return await MAILS.count(f"{kind} {email_key(mailbox)}") if self.enabled else Verdict()

    @asynccontextmanager
    async def _guess(self, throttle: Throttle, key: str) -> AsyncIterator[None]:
        """Raise RateLimitedError, or give the guess back where it was right, or not checked at all."""
        if not self.enabled:
            yield
            return
        (await throttle.count(key)).require()
        try:
            yield
        except UnavailableError:
            await throttle.give_back(key)
            raise
        await throttle.give_back(key)


def login_key(name: str) -> str:
    """Return what the look-up of the account goes by: the key of an address or of a user name."""
    if "@" not in name:
        return username_key(name)
    try:
        return email_key(name)
    except ValueError:  # no address: nobody has it
        return name
