"""The cache that several processes share."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from secrets import token_urlsafe
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from app.core.db.installation import KeyPrefix
from app.core.services.cache.link import TIMEOUT, Away, RedisLink
from app.core.services.cache.names import matcher
from app.core.services.cache.store import CacheStore, Found, Tokens
from app.core.services.log import logger

OWED = 1000
"""At most so many keys and patterns wait to be deleted when Redis is back; above that everything is deleted then."""

BATCH = 500

Step = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


class RedisStore(CacheStore):
    """While Redis is away every read is a miss; what should have been forgotten is forgotten after.

    Keys begin with `<prefix>cache:`. It counts as away where a call gets no answer within `timeout` seconds;
    timeouts of `redis` must be longer.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: KeyPrefix,
        *,
        timeout: float = TIMEOUT,
        max_seconds: float = 86400,
        max_bytes: int = 1024 * 1024,
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._max_ms = round(max_seconds * 1000)
        self._max_bytes = max_bytes
        self._link = RedisLink(redis, self._pay, timeout)
        self._owed: set[bytes] = set()
        self._owed_patterns: set[tuple[str, str]] = set()
        self._owes_everything = False
        self._refused = False
        if prefix.known is None:
            self._link.give_up(RedisConnectionError())

    async def close(self) -> None:
        """Stop looking for whether Redis is back."""
        await self._link.close()

    async def read(self, key: str, tags: Collection[str]) -> Found:
        async def ask() -> Sequence[Any]:
            # A range of it: whoever else writes there may have left half a gigabyte.
            if not tags:
                return await self._redis.getrange(self._key(key), 0, self._max_bytes), ()
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.getrange(self._key(key), 0, self._max_bytes)
            pipeline.mget(self._tags(tags))
            return await pipeline.execute()

        try:
            data, tokens = await self._link.call(ask)
        except Away:
            return Found(None, {})
        except ResponseError:  # it is no string
            await self.remove([key])
            return Found(None, {})
        return Found(data or None, _present(tags, tokens))

    async def claim(self, tags: Collection[str]) -> Tokens:
        async def ask() -> Sequence[Any]:
            pipeline = self._redis.pipeline(transaction=False)
            for name in self._tags(tags):
                pipeline.set(name, token_urlsafe(9), nx=True, px=self._max_ms)
            pipeline.mget(self._tags(tags))
            *_, tokens = await pipeline.execute()
            return list(tokens)

        try:
            return _present(tags, await self._link.call(ask))
        except (Away, ResponseError) as exc:
            self._note(exc)
            return {}

    async def write(self, key: str, data: bytes, seconds: float, tags: Collection[str]) -> bool:
        async def ask() -> None:
            milliseconds = max(1, round(seconds * 1000))
            if not tags:
                await self._redis.set(self._key(key), data, px=milliseconds)
                return
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.set(self._key(key), data, px=milliseconds)
            for name in self._tags(tags):
                pipeline.pexpire(name, self._max_ms)  # makes no key: what was invalidated meanwhile stays so
            await pipeline.execute()

        try:
            await self._link.call(ask)
        except (Away, ResponseError) as exc:
            self._note(exc)
            return False
        return True

    async def remove(self, keys: Collection[str], tags: Collection[str] = ()) -> bool:
        names = [*map(self._key, keys), *self._tags(tags)]
        try:
            await self._unlink(names, self._link.call)
        except (Away, ResponseError) as exc:
            self._owed.update(names)
            self._owe(exc)
            return False
        return True

    async def remove_matching(self, namespace: str, pattern: str) -> bool:
        try:
            await self._sweep(namespace, pattern, self._link.call)
        except (Away, ResponseError) as exc:
            self._owed_patterns.add((namespace, pattern))
            self._owe(exc)
            return False
        return True

    def _key(self, name: str) -> bytes:
        return f"{self._prefix.known}cache:k:{name}".encode("utf-8", "surrogatepass")

    def _tags(self, names: Collection[str]) -> list[bytes]:
        return [f"{self._prefix.known}cache:t:{name}".encode("utf-8", "surrogatepass") for name in names]

    async def _sweep(self, namespace: str, pattern: str, step: Step) -> None:
        """Remove what fits, a batch a step: a Redis with millions of keys goes on answering others."""
        prefix, fits = self._key(f"{namespace}:"), matcher(pattern)
        glob = _glob(prefix, b"") + _glob(pattern.encode("utf-8", "surrogatepass"), b"*?") + b"*"  # with its callers'
        async for names in self._scan(glob, step):
            fitting = [name for name in names if fits(name.removeprefix(prefix).decode(errors="replace"))]
            await self._unlink(fitting, step)

    async def _scan(self, glob: bytes, step: Step) -> AsyncIterator[list[bytes]]:
        cursor = 0
        while True:
            cursor, names = await step(partial(self._redis.scan, cursor, match=glob, count=BATCH))
            yield names
            if not cursor:
                return

    async def _unlink(self, names: Sequence[bytes], step: Step) -> None:
        for start in range(0, len(names), BATCH):
            await step(partial(self._redis.unlink, *names[start : start + BATCH]))

    def _owe(self, reason: Exception) -> None:
        """Queue failed deletes; they run before Redis is read again."""
        if self._prefix.known is None or len(self._owed) + len(self._owed_patterns) > OWED:
            self._owes_everything = True
            self._owed.clear()
            self._owed_patterns.clear()
        if isinstance(reason, ResponseError):
            self._link.give_up(reason)

    async def _pay(self) -> None:
        """Forget what is owed, and what comes to be owed meanwhile."""
        prefix = await self._prefix.get()
        while self._owes_everything or self._owed or self._owed_patterns:
            if self._owes_everything:
                async for names in self._scan(_glob(f"{prefix}cache:".encode(), b"") + b"*", _now):
                    await self._unlink(names, _now)
                self._owes_everything = False
            owed, patterns = list(self._owed), list(self._owed_patterns)
            await self._unlink(owed, _now)
            self._owed.difference_update(owed)
            for namespace, pattern in patterns:
                await self._sweep(namespace, pattern, _now)
            self._owed_patterns.difference_update(patterns)

    def _note(self, reason: Exception) -> None:
        """Say once that Redis takes nothing (it is full, or a replica): everything is made anew each time."""
        if isinstance(reason, ResponseError) and not self._refused:
            self._refused = True
            logger.error("Redis refuses to keep cached values", error=str(reason))


def _present(tags: Collection[str], tokens: Sequence[Any]) -> Tokens:
    return {tag: token.decode("utf-8", "replace") for tag, token in zip(tags, tokens, strict=True) if token}


def _glob(text: bytes, special: bytes) -> bytes:
    """The pattern of Redis that means `text`, where the characters in `special` keep their sense."""
    return re.sub(rb"[\\*?\[\]^-]", lambda found: found[0] if found[0] in special else b"\\" + found[0], text)


async def _now(command: Callable[[], Awaitable[Any]]) -> Any:
    return await command()
