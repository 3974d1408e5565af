"""The policy for new passwords, and hashing with argon2id, in a few threads with a bounded queue."""

import asyncio
import math
import re
import secrets
import time
import unicodedata
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from passlib.context import CryptContext

from app.auth.exceptions import TooManyPasswords

MAX_LENGTH = 256

MAX_WAIT = 2.0
"""Seconds that a password may wait for its turn to be hashed."""

_COMMON = frozenset(Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8").splitlines())
_KEYS = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")
_ROWS = [keys[::step] * MAX_LENGTH for keys in _KEYS for step in (1, -1)]

T = TypeVar("T")

Disconnected: TypeAlias = Callable[[], Awaitable[object]]
"""Returns when the client has disconnected."""


class Verified(NamedTuple):
    """Result of a check; `new_hash` where the stored one was made with other parameters."""

    ok: bool
    new_hash: str | None = None


class PasswordPolicy(NamedTuple):
    """Judges new passwords only (OWASP ASVS 5.0, 6.2; NIST SP 800-63B-4, 3.1.1.2); there are no composition rules."""

    min_length: int
    project: str
    domain: str

    def fault(self, password: str, *, email: str, username: str) -> tuple[str, str] | None:
        """Return type and message of the reason why the account with these names must not have this password."""
        stable = _stable(password)
        if max(len(password), len(stable)) > MAX_LENGTH:
            return "password_too_long", f"Use at most {MAX_LENGTH} characters."
        if self._is_common(stable.casefold()):
            return "password_too_common", "This password is easy to guess: choose another."
        if self._has_name(_bare(password), email, username):
            return "password_contains_name", "Leave out your user name, your address, this service's name and domain."
        if min(len(password), len(stable)) < self.min_length:
            return "password_too_short", f"Use at least {self.min_length} characters."
        return None

    def generate(self) -> str:
        """Return a random password of at least 96 bits."""
        return secrets.token_urlsafe(max(12, self.min_length))

    def _is_common(self, folded: str) -> bool:
        unit = folded[: (folded + folded).find(folded, 1)]  # that it repeats
        core = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", folded)  # "password" of "password2026!"
        tried = [folded, core] if 2 * len(core) >= len(folded) else [folded]
        known = any(text in _COMMON or any(text in row for row in _ROWS) for text in tried)
        return known or len(unit) < min(self.min_length, len(folded))

    def _has_name(self, bare: str, email: str, username: str) -> bool:
        local = email.partition("@")[0]
        labels = self.domain.split(".")[:-1]  # all but the top-level domain
        names = (username, email, local, local.partition("+")[0], self.project, self.domain, *labels)
        return any(len(name) >= 4 and name in bare for name in map(_bare, names))  # shorter ones are in many words


class PasswordHasher:
    """Hashes and verifies passwords in at most `workers` threads.

    The pool is its own: hashing waits for hashing, and the rest of the process keeps its threads and its CPU.
    """

    def __init__(self, *, memory_kib: int, rounds: int, parallelism: int, workers: int) -> None:
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=rounds,
            argon2__parallelism=parallelism,
        )
        self.pool = HashPool(workers)

    async def hash(self, password: str, *, disconnected: Disconnected | None = None) -> str:
        """Return the hash to store; raises TooManyPasswords where too many wait, or the client disconnects first."""
        return await self.pool.run(partial(self._context.hash, _stable(password)), disconnected)

    async def verify(self, password: str, stored: str | None, *, disconnected: Disconnected | None = None) -> Verified:
        """Check `password` against `stored`; None (no such account) takes as long and never matches.

        Raises TooManyPasswords as `hash` does.
        """
        return await self.pool.run(partial(self._verify, password, stored), disconnected)

    def _verify(self, password: str, stored: str | None) -> Verified:
        if len(password) > MAX_LENGTH or len(_stable(password)) > 4096:  # passlib refuses those
            password, stored = "", None
        ok, new_hash = self._context.verify_and_update(_stable(password), stored or self._dummy)
        return Verified(ok, new_hash) if ok and stored else Verified(ok=False)

    @cached_property
    def _dummy(self) -> str:
        return self._context.hash(secrets.token_urlsafe(32))


class HashPool:
    """A few threads, and a queue with a wait of at most `MAX_WAIT`, left when the client disconnects."""

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="passwords")
        self._workers = workers
        self._pending = 0
        self._seconds = 0.05  # that one takes, on average

    async def run(self, function: Callable[[], T], disconnected: Disconnected | None = None) -> T:
        """Call the function in a thread; raises TooManyPasswords where its turn does not come in time."""
        wait = (self._pending - self._workers + 1) * self._seconds / self._workers
        if wait > MAX_WAIT:
            raise TooManyPasswords(retry_after=math.ceil(wait))
        self._pending += 1
        try:
            return await self._turn(function, disconnected)
        finally:
            self._pending -= 1

    async def _turn(self, function: Callable[[], T], disconnected: Disconnected | None) -> T:
        future = self._threads.submit(self._timed, function)
        result = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(disconnected() if disconnected else asyncio.Event().wait())
        try:
            either: set[asyncio.Future[Any]] = {result, gone}
            await asyncio.wait(either, timeout=MAX_WAIT, return_when=asyncio.FIRST_COMPLETED)
            unknown = gone.done() and gone.exception()  # whether the client is still there
            if not result.done() and not unknown and future.cancel():
                raise TooManyPasswords
            return await result
        finally:
            gone.cancel()
            result.cancel()  # where this task was cancelled: what has not begun must not

    def _timed(self, function: Callable[[], T]) -> T:
        began = time.monotonic()
        result = function()
        self._seconds += (time.monotonic() - began - self._seconds) / 5
        return result


def _stable(password: str) -> str:
    """Normalize characters typed on different keyboards (NIST SP 800-63B-4, 3.1.1.2). Stored hashes depend on it."""
    return unicodedata.normalize("NFKC", password)


def _bare(text: str) -> str:
    """Return letters and digits alone, in one case: `Bob.Smith` is part of `bob-smith 1970`."""
    return "".join(character for character in _stable(text).casefold() if character.isalnum())
