"""Exact sliding windows: counted in Redis while it answers, in this process while it does not."""

import asyncio
import time
from bisect import bisect_right
from collections import OrderedDict
from functools import cache
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.configs.app import current_settings
from app.core.db.installation import current_key_prefix, current_redis
from app.core.services.log import logger

MAX_KEYS = 20_000
"""Keys of one rate that a process counts; the least recently used are dropped."""
REDIS_PAUSE = 1.0
"""Seconds until Redis is tried again after it did not answer."""

# Redis's own clock counts: those of the app's hosts differ. `used` makes the member unique where two calls meet in one
# microsecond.
_COUNT = """
local interval, times = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - interval * 1000))
local used = redis.call('ZCARD', KEYS[1])
local allowed = used < times
if allowed then
  local stamp = string.format('%.0f', now)
  redis.call('ZADD', KEYS[1], stamp, stamp .. '-' .. used)
  redis.call('PEXPIRE', KEYS[1], interval)
  used = used + 1
end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {allowed and 1 or 0, times - used, math.ceil((tonumber(oldest[2]) + interval * 1000 - now) / 1000)}
"""


class Verdict(NamedTuple):
    """Result of counting one call: calls left, and milliseconds until there is one more."""

    allowed: bool
    remaining: int
    reset_ms: int


class SlidingWindows:
    """At most `times` calls in any `interval_ms`, for each key. A refused call costs nothing."""

    def __init__(self, times: int, interval_ms: int, max_keys: int = MAX_KEYS) -> None:
        self.times = times
        self.interval_ms = interval_ms
        self._max_keys = max_keys
        self._calls: OrderedDict[str, list[int]] = OrderedDict()  # when each key was admitted

    def __len__(self) -> int:
        return len(self._calls)

    def count(self, key: str, now: int | None = None) -> Verdict:
        """Count a call in this process, `now` in milliseconds of the monotonic clock."""
        now = time.monotonic_ns() // 1_000_000 if now is None else now
        calls = self._calls.pop(key, [])
        del calls[: bisect_right(calls, now - self.interval_ms)]
        allowed = len(calls) < self.times
        if allowed:
            calls.append(now)
        self._calls[key] = calls
        self._drop_idle(now)
        return Verdict(allowed, self.times - len(calls), calls[0] + self.interval_ms - now)

    async def count_shared(self, key: str, redis: Redis) -> Verdict:
        """Count a call in Redis, in one round trip."""
        count = redis.register_script(_COUNT)
        allowed, remaining, reset_ms = await count(keys=[key], args=[self.interval_ms, self.times])
        return Verdict(bool(allowed), remaining, reset_ms)

    def _drop_idle(self, now: int) -> None:
        """Drop idle windows and those beyond the bound, least recently used first; never the one just counted."""
        while len(self) > self._max_keys or next(iter(self._calls.values()))[-1] <= now - self.interval_ms:
            self._calls.popitem(last=False)


@cache
def windows_of(times: int, interval_ms: int) -> SlidingWindows:
    """Return this process's windows for a rate. Limits of one name and rate share them."""
    return SlidingWindows(times, interval_ms)


class FallbackCounter:
    """Counts in Redis while it answers, in this process while it does not.

    What Redis admits is counted here too, so that a Redis that goes away, or is only slow for some of the
    calls, does not hand out the limit a second time.
    """

    def __init__(self) -> None:
        self._counted_alone_at = float("-inf")
        self._retry_at: float | None = None  # set while Redis is away

    async def count(self, windows: SlidingWindows, key: str) -> Verdict:
        """Count one more call."""
        shared = await self._count_shared(windows, key)
        if shared is not None and not shared.allowed:
            return shared
        own = windows.count(key)
        now = time.monotonic()
        if shared is None:
            self._counted_alone_at = now
        # Both may differ at the edge of a window, by the delay of the network: Redis counts, unless it lacks calls.
        complete = now - self._counted_alone_at >= windows.interval_ms / 1000
        return shared if shared is not None and complete else own

    async def _count_shared(self, windows: SlidingWindows, key: str) -> Verdict | None:
        redis, now = current_redis(), time.monotonic()
        if redis is None or (self._retry_at is not None and now < self._retry_at):
            return None
        if self._retry_at is not None:
            self._retry_at = now + REDIS_PAUSE  # one call finds out for all
        try:
            async with asyncio.timeout(current_settings().RATE_LIMITER_TIMEOUT_SECONDS):
                prefix = await current_key_prefix().get()
                verdict = await windows.count_shared(f"{prefix}limit:{key}", redis)
        except (RedisError, OSError) as exc:
            if self._retry_at is None:
                error = str(exc) or type(exc).__name__
                logger.warning("limits are counted per process: Redis does not answer", error=error)
            self._retry_at = time.monotonic() + REDIS_PAUSE
            return None
        if self._retry_at is not None:
            logger.info("limits are shared through Redis again")
        self._retry_at = None
        return verdict
