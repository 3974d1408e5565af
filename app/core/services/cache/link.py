"""How long the cache waits for Redis, and what becomes of it while Redis is away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.core.services.log import logger

T = TypeVar("T")

TIMEOUT = 0.03
"""For how many seconds one call waits for Redis, connecting included, where nobody says otherwise."""

TICKS = 6
"""The time is counted in so many turns of the event loop: a loop that is blocked is not a Redis that is slow."""

CALLS = 10
"""How many are under way at once. More would only wait for this process, and open connections to do so."""

PAUSE = 1.0
"""For how many seconds Redis is left alone between two looks for whether it is back."""


class Away(Exception):
    """Redis does not answer, or did not a moment ago."""


class RedisLink:
    """Redis while it answers. After a failure nobody waits for it: a task of its own finds out when it is back.

    `make_up` runs before anybody is let through again.
    """

    def __init__(self, redis: Redis, make_up: Callable[[], Awaitable[None]], timeout: float) -> None:
        self._redis = redis
        self._make_up = make_up
        self._timeout = timeout
        self._turns = asyncio.Semaphore(CALLS)
        self._recovery: asyncio.Task[None] | None = None

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """The answer of `command`, or Away. What Redis refuses to do is the ResponseError it says."""
        try:
            async with self._turns:
                if self._recovery:
                    raise Away
                async with _at_most(self._timeout):
                    return await command()
        except ResponseError:
            raise
        except (RedisError, OSError) as exc:
            self.give_up(exc)
            raise Away from exc

    def give_up(self, reason: Exception) -> None:
        """Go on without Redis until it is back."""
        if self._recovery is None:
            logger.error("Redis cannot be reached: going on without a cache", error=type(reason).__name__)
            # In no request's context: its lines and its unit of work are not ours.
            self._recovery = asyncio.create_task(self._recover(), context=Context())

    async def close(self) -> None:
        """Stop looking for it."""
        if self._recovery:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            try:
                await self._redis.ping()
                await self._make_up()
            except (RedisError, OSError):
                continue
            self._recovery = None
            logger.info("the cache is back")
            return


@asynccontextmanager
async def _at_most(seconds: float) -> AsyncIterator[None]:
    """A TimeoutError once the loop has come round `TICKS` times in at least so many seconds.

    By the clock alone, a process that is busy for 30 ms would take that for Redis's fault and give its cache up
    when it needs it most.
    """
    loop = asyncio.get_running_loop()
    left, pause = TICKS, seconds / TICKS
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal left, timer
        left -= 1
        if left:
            timer = loop.call_later(pause, tick)
        else:
            timeout.reschedule(loop.time())

    timer = loop.call_later(pause, tick)
    try:
        async with asyncio.timeout(None) as timeout:
            yield
    finally:
        timer.cancel()
