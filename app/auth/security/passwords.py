"""Password hashing: argon2id, off the event loop, a few at a time."""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple, ParamSpec, TypeVar

from passlib.context import CryptContext

MIN_LENGTH, MAX_LENGTH = 8, 128

P = ParamSpec("P")
T = TypeVar("T")


class Verified(NamedTuple):
    """Whether a password was right, and its new hash where the stored one was made with other parameters."""

    ok: bool
    new_hash: str | None = None


class PasswordHasher:
    """Hashes and verifies; `workers` bounds how many threads do so at once.

    A pool of its own: hashing waits for hashing, and the rest of the process keeps its threads and its CPU.
    """

    def __init__(self, *, memory_kib: int, rounds: int, parallelism: int, workers: int) -> None:
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=rounds,
            argon2__parallelism=parallelism,
        )
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="passwords")

    async def hash(self, password: str) -> str:
        """The hash to store."""
        return await self._run(self._context.hash, _stable(password))

    async def verify(self, password: str, stored: str | None) -> Verified:
        """Whether `password` belongs to `stored`; None (no such account) takes as long and is never right."""
        return await self._run(self._verify, password, stored)

    def _verify(self, password: str, stored: str | None) -> Verified:
        if len(password) > MAX_LENGTH:
            password, stored = "", None
        ok, new_hash = self._context.verify_and_update(_stable(password), stored or self._dummy)
        return Verified(ok, new_hash) if ok and stored else Verified(ok=False)

    @cached_property
    def _dummy(self) -> str:
        return self._context.hash(secrets.token_urlsafe(32))

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        future = self._pool.submit(function, *args, **kwargs)
        return await asyncio.wrap_future(future)


def _stable(password: str) -> str:
    """One form for the same characters typed on different keyboards (NIST SP 800-63B section 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
