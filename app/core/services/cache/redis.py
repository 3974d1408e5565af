"""Storage of the cache in Redis, shared by several processes, behind a circuit breaker."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextvars import Context
from functools import partial
from secrets import token_urlsafe
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from app.core.db.installation import KeyPrefix
from app.core.services.cache.store import (
    CACHE_MAX_SECONDS,
    CACHE_MAX_VALUE_BYTES,
    CacheStore,
    Found,
    Tokens,
    matcher,
)
from app.core.services.log import logger

TIMEOUT = 0.03  # seconds of one call by default, connecting included
TICKS = 6  # turns of the event loop in a timeout
MAX_CALLS = 10  # at once: more would only wait for this process, and open connections to do so
RETRY_SECONDS = 1.0  # between two looks whether Redis is back
MAX_POSTPONED = 1000  # keys and patterns to delete later; above that, everything is deleted
BATCH = 500
TAG_MILLISECONDS = CACHE_MAX_SECONDS * 1000

Pattern = tuple[str | None, str]
"""A namespace, or None for all of the cache, and a pattern of its keys."""

_ALL: Pattern = (None, "*")

T = TypeVar("T")


class RedisUnavailable(Exception):
    """Redis does not answer, or did not a moment ago."""


class CircuitBreaker:
    """Timeout for calls to Redis. After a failure nobody waits: calls fail at once until a task finds Redis back.

    `recover` runs before the first call is let through again.
    """

    def __init__(self, redis: Redis, recover: Callable[[], Awaitable[None]], timeout: float) -> None:
        self._redis = redis
        self._recover = recover
        self._timeout = timeout
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self.recovery: asyncio.Task[None] | None = None

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Return the answer of `command`, or raise RedisUnavailable; ResponseError if Redis refuses the command."""
        if self.recovery and self.recovery is asyncio.current_task():
            return await command()
        try:
            async with self._calls:
                if self.recovery:
                    raise RedisUnavailable
                return await _within(self._timeout, command)
        except ResponseError:
            raise
        except (RedisError, OSError) as exc:
            self.open(exc)
            raise RedisUnavailable from exc

    def open(self, reason: Exception) -> None:
        """Go on without Redis until it is back."""
        if self.recovery is None:
            logger.error("Redis cannot be reached: going on without a cache", error=type(reason).__name__)
            # In no request's context: its log ids and its unit of work do not belong to this task.
            self.recovery = asyncio.create_task(self._wait_for_redis(), context=Context())

    async def close(self) -> None:
        """Stop the recovery."""
        if self.recovery:
            self.recovery.cancel()
            await asyncio.gather(self.recovery, return_exceptions=True)

    async def _wait_for_redis(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self._redis.ping()
                await self._recover()
            except (RedisError, OSError):
                continue
            self.recovery = None
            logger.info("the cache is back")
            return


async def _within(seconds: float, command: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of `command`, or raise TimeoutError after `TICKS` turns of the loop in at least `seconds`.

    By the clock alone, a process that is busy for 30 ms would blame Redis and give its cache up when it needs it
    most.
    """
    task = asyncio.ensure_future(command())
    try:
        for _ in range(TICKS):
            done, _ = await asyncio.wait((task,), timeout=seconds / TICKS)
            if done:
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()


class RedisStore(CacheStore):
    """While Redis is unavailable every read is a miss; failed deletions are postponed until it is back.

    Keys begin with `<prefix>cache:`. `timeout` is that of one call, in seconds; the timeouts of `redis` must be longer.
    """

    def __init__(self, redis: Redis, prefix: KeyPrefix, *, timeout: float = TIMEOUT) -> None:
        self._redis = redis
        self._prefix = prefix
        self._breaker = CircuitBreaker(redis, self._delete_postponed, timeout)
        self._postponed: set[bytes] = set()
        self._postponed_patterns: set[Pattern] = set()
        self._has_refused = False
        if prefix.known is None:
            self._breaker.open(RedisConnectionError())

    async def close(self) -> None:
        """Stop waiting for Redis."""
        await self._breaker.close()

    async def read(self, key: str, tags: Collection[str]) -> Found:
        async def ask() -> list[Any]:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.getrange(self._key(key), 0, CACHE_MAX_VALUE_BYTES)  # another program may have left more
            if tags:
                pipeline.mget(self._tags(tags))
            answers: list[Any] = await pipeline.execute()
            return answers

        try:
            data, *tokens = await self._breaker.call(ask)
        except RedisUnavailable:
            return Found(None, {})
        except ResponseError:  # it is no string
            await self.remove([key])
            return Found(None, {})
        return Found(data or None, _present(tags, tokens[0]) if tags else {})

    async def claim(self, tags: Collection[str]) -> Tokens:
        async def ask() -> Tokens:
            pipeline = self._redis.pipeline(transaction=False)
            for name in self._tags(tags):
                pipeline.set(name, token_urlsafe(9), nx=True, px=TAG_MILLISECONDS)
            pipeline.mget(self._tags(tags))
            *_, tokens = await pipeline.execute()
            return _present(tags, tokens)

        return await self._change(ask) or {}

    async def write(self, key: str, data: bytes, seconds: float, tags: Collection[str]) -> bool:
        async def ask() -> bool:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.set(self._key(key), data, px=max(1, round(seconds * 1000)))
            for name in self._tags(tags):
                pipeline.pexpire(name, TAG_MILLISECONDS)  # makes no key: what was invalidated meanwhile stays so
            await pipeline.execute()
            return True

        return await self._change(ask) or False

    async def remove(self, keys: Collection[str], tags: Collection[str] = ()) -> bool:
        return await self._delete([*map(self._key, keys), *self._tags(tags)], ())

    async def remove_matching(self, namespace: str, pattern: str) -> bool:
        return await self._delete((), [(namespace, pattern)])

    async def _change(self, command: Callable[[], Awaitable[T]]) -> T | None:
        """Run a command that stores something; None if it fails.

        A Redis that takes nothing (it is full, or a replica) is logged once: every value is then computed anew.
        """
        try:
            return await self._breaker.call(command)
        except RedisUnavailable:
            return None
        except ResponseError as exc:
            if not self._has_refused:
                self._has_refused = True
                logger.error("Redis refuses to keep cached values", error=str(exc))
            return None

    async def _delete(self, names: Collection[bytes], patterns: Collection[Pattern]) -> bool:
        """Delete names and patterns; False if that is postponed until just before Redis is read again."""
        try:
            await self._delete_now(names, patterns)
        except (RedisUnavailable, ResponseError) as exc:
            self._postpone(names, patterns)
            if isinstance(exc, ResponseError):
                self._breaker.open(exc)
            return False
        return True

    def _postpone(self, names: Collection[bytes], patterns: Collection[Pattern]) -> None:
        self._postponed.update(names)
        self._postponed_patterns.update(patterns)
        if self._prefix.known is None or len(self._postponed) + len(self._postponed_patterns) > MAX_POSTPONED:
            self._postponed, self._postponed_patterns = set(), {_ALL}

    async def _delete_postponed(self) -> None:
        """Delete what is postponed, and what comes to be postponed meanwhile."""
        await self._prefix.get()
        while self._postponed or self._postponed_patterns:
            names, patterns = self._postponed, self._postponed_patterns
            self._postponed, self._postponed_patterns = set(), set()  # the same name may be postponed again meanwhile
            try:
                await self._delete_now(names, patterns)
            except Exception:
                self._postpone(names, patterns)
                raise

    async def _delete_now(self, names: Collection[bytes], patterns: Collection[Pattern]) -> None:
        await self._unlink(list(names))
        for namespace, pattern in patterns:
            prefix = self._name("") if namespace is None else self._key(f"{namespace}:")
            await self._delete_matching(prefix, pattern)

    async def _delete_matching(self, prefix: bytes, pattern: str) -> None:
        """Delete a batch a step: a Redis with millions of keys goes on answering others.

        Redis looks for the literal beginning only: its `?` is one byte, and the entries of callers have longer keys.
        """
        matches = matcher(pattern)
        beginning = re.split(r"[*?]", pattern, maxsplit=1)[0].encode("utf-8", "surrogatepass")
        glob = re.sub(rb"[\\*?\[\]^-]", rb"\\\g<0>", prefix + beginning) + b"*"
        cursor: int | None = None
        while cursor != 0:
            scan: Callable[[], Awaitable[Any]] = partial(self._redis.scan, cursor or 0, match=glob, count=BATCH)
            cursor, names = await self._breaker.call(scan)
            keys = {name: name.removeprefix(prefix).decode(errors="replace") for name in names}
            await self._unlink([name for name, key in keys.items() if matches(key)])

    async def _unlink(self, names: Sequence[bytes]) -> None:
        for start in range(0, len(names), BATCH):
            await self._breaker.call(partial(self._redis.unlink, *names[start : start + BATCH]))

    def _key(self, key: str) -> bytes:
        return self._name(f"k:{key}")

    def _tags(self, tags: Collection[str]) -> list[bytes]:
        return [self._name(f"t:{tag}") for tag in tags]

    def _name(self, name: str) -> bytes:
        return f"{self._prefix.known}cache:{name}".encode("utf-8", "surrogatepass")


def _present(tags: Collection[str], tokens: Sequence[Any]) -> Tokens:
    return {tag: token.decode("utf-8", "replace") for tag, token in zip(tags, tokens, strict=True) if token}
