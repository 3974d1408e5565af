"""Password hashing with argon2id, in a few threads with a bounded queue."""

import asyncio
import math
import secrets
import time
import unicodedata
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from passlib.context import CryptContext

from app.auth.exceptions import TooManyPasswords

MIN_LENGTH, MAX_LENGTH = 8, 128

MAX_WAIT = 2.0
"""Seconds that a password may wait for its turn to be hashed."""

T = TypeVar("T")

Disconnected: TypeAlias = Callable[[], Awaitable[object]]
"""Returns when the client has disconnected."""


class Verified(NamedTuple):
    """Result of a check; `new_hash` where the stored one was made with other parameters."""

    ok: bool
    new_hash: str | None = None


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
        if len(password) > MAX_LENGTH:
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
    """Normalize characters typed on different keyboards (NIST SP 800-63B section 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
