"""Exact sliding windows of the limiter and of throttles: in Redis while it answers, in this process otherwise."""

import asyncio
import math
import time
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any

from pyrate_limiter import (
    BucketFactory,
    Decision,
    InMemoryStateStore,
    MonotonicClock,
    Rate,
    RateItem,
    RedisStateStore,
    StateBucket,
)
from pyrate_limiter.abstracts import StateAlgorithm
from pyrate_limiter.abstracts.algorithm import State
from pyrate_limiter.abstracts.store import StateStore
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.configs.app import current_settings
from app.core.db.installation import current_key_prefix, current_redis
from app.core.exceptions import RateLimitedError
from app.core.services.log import logger

MAX_KEYS = 20_000
"""Keys of one rate that a process counts; the least recently used are dropped."""
REDIS_PAUSE = 1.0
"""Seconds until Redis is tried again after it did not answer."""


@dataclass(frozen=True)
class Verdict(Decision):
    """Result of counting one call: milliseconds until there is one more, also for an admitted one, and calls left."""

    retry_after_ms: int = 0
    remaining: int = 0

    def require(self) -> None:
        """Raise RateLimitedError unless the call was admitted."""
        if not self.allowed:
            raise RateLimitedError(retry_after=whole_seconds(self.retry_after_ms))


def whole_seconds(milliseconds: int) -> int:
    """Round up: whoever waits that long is let in."""
    return max(1, math.ceil(milliseconds / 1000))


class SlidingWindow(StateAlgorithm):
    """At most `limit` calls in any `interval`, for each of the rates. The state is the times of admitted calls.

    A refused call costs nothing; the weight -1 gives the latest one back. The library's own algorithm, GCRA, lets a
    burst and its refill through within one interval.
    """

    def initial(self, rates: list[Rate]) -> State:
        return ()

    def step(self, rates: list[Rate], state: State, now: int, weight: int) -> tuple[State, Verdict]:
        state = state[bisect_right(state, now - max(rate.interval for rate in rates)) :]
        if weight < 0:
            state = state[:-1]
        allowed = all(_room(rate, state, now)[0] > 0 for rate in rates)
        if allowed and weight > 0:
            state += (now,)
        remaining, wait = min(_room(rate, state, now) for rate in rates)
        return state, Verdict(None if allowed else rates[0], -wait, remaining)

    def redis_args(self, rates: list[Rate]) -> list[int | float]:
        return [number for rate in rates for number in (rate.interval, rate.limit)]

    # Redis's own clock counts: those of the app's hosts differ. The store sends now, weight, TTL and the number of
    # rates first. The number of calls makes the member unique where two meet in one microsecond.
    def redis_script(self) -> str:
        return """
local key, weight, longest = KEYS[1], tonumber(ARGV[2]), 0
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function after(interval) return string.format('(%.0f', now - interval * 1000) end
for i = 5, #ARGV, 2 do longest = math.max(longest, tonumber(ARGV[i])) end
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - longest * 1000))
if weight < 0 then redis.call('ZPOPMAX', key) end
local allowed, used = true, {}
for i = 5, #ARGV, 2 do
  used[i] = redis.call('ZCOUNT', key, after(ARGV[i]), '+inf')
  allowed = allowed and used[i] < tonumber(ARGV[i + 1])
end
local new = allowed and weight > 0 and 1 or 0
if new == 1 then
  local stamp = string.format('%.0f', now)
  redis.call('ZADD', key, stamp, stamp .. '-' .. redis.call('ZCARD', key))
  redis.call('PEXPIRE', key, longest)
end
local remaining, reset
for i = 5, #ARGV, 2 do
  local oldest = redis.call('ZRANGEBYSCORE', key, after(ARGV[i]), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local left = tonumber(ARGV[i + 1]) - used[i] - new
  local wait = oldest[2] and math.ceil((tonumber(oldest[2]) + ARGV[i] * 1000 - now) / 1000) or 0
  if not remaining or left < remaining or (left == remaining and wait > reset) then remaining, reset = left, wait end
end
return {allowed and 1 or 0, reset, remaining}
"""


def _room(rate: Rate, state: State, now: int) -> tuple[int, int]:
    """Return the calls left under a rate, and minus the milliseconds until there is one more: the least counts."""
    first = bisect_right(state, now - rate.interval)
    used = len(state) - first
    return rate.limit - used, now - rate.interval - int(state[first]) if used else 0


class _SharedWindow(RedisStateStore):
    @staticmethod
    def _decision(rates: list[Rate], reply: Any) -> Verdict:
        allowed, reset, remaining = map(int, reply)
        return Verdict(None if allowed else rates[0], reset, remaining)


_ALGORITHM = SlidingWindow()
_CLOCK = MonotonicClock()


class SlidingWindows(BucketFactory):
    """The windows of a rate, or of several at once, for each key; idle ones are dropped. `rate` is the longest."""

    def __init__(self, *rates: Rate, max_keys: int = MAX_KEYS) -> None:
        self.rate = max(rates, key=lambda rate: rate.interval)
        self.rates = list(rates)
        self._max_keys = max_keys
        self._windows: OrderedDict[str, tuple[int, InMemoryStateStore]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        return RateItem(name, _CLOCK.now(), weight)

    def get(self, item: RateItem) -> StateBucket:
        """Return the window in this process, as the library's limiter asks for it."""
        return StateBucket(self.rates, _ALGORITHM, self._window(item))

    def count(self, item: RateItem) -> Verdict:
        """Count a call in this process."""
        verdict: Verdict = self._check(self._window(item), item)
        return verdict

    async def count_shared(self, item: RateItem, redis: Redis, prefix: str) -> Verdict:
        """Count a call in Redis, in one round trip."""
        verdict: Verdict = await self._check(_SharedWindow(redis, prefix + item.name), item)
        return verdict

    def _check(self, window: StateStore, item: RateItem) -> Any:
        return window.check(_ALGORITHM, self.rates, item.timestamp, item.weight)

    def _window(self, item: RateItem) -> InMemoryStateStore:
        _, window = self._windows.pop(item.name, (0, None))
        self._windows[item.name] = (item.timestamp, window := window or InMemoryStateStore())
        # Drop idle windows and those beyond the bound, least recently used first; never the one just asked for.
        idle_since = item.timestamp - self.rate.interval
        while len(self) > self._max_keys or next(iter(self._windows.values()))[0] <= idle_since:
            self._windows.popitem(last=False)
        return window


@cache
def windows_of(times: int, interval_ms: int) -> SlidingWindows:
    """Return this process's windows for a rate. Limits of one name and rate share them."""
    return SlidingWindows(Rate(times, interval_ms))


class FallbackCounter:
    """Counts in Redis while it answers, in this process while it does not.

    What Redis admits is counted here too, so that a Redis that goes away, or is only slow for some of the
    calls, does not hand out the limit a second time.
    """

    def __init__(self) -> None:
        self._counted_alone_at = float("-inf")
        self._retry_at: float | None = None  # set while Redis is away

    async def count(self, windows: SlidingWindows, key: str, weight: int = 1) -> Verdict:
        """Count one more call, or give the latest one back: weight -1."""
        item = windows.wrap_item(key, weight)
        shared = await self._count_shared(windows, item)
        if shared is not None and not shared.allowed:
            return shared
        own = windows.count(item)
        now = time.monotonic()
        if shared is None:
            self._counted_alone_at = now
        # Both may differ at the edge of a window, by the delay of the network: Redis counts, unless it lacks calls.
        complete = now - self._counted_alone_at >= windows.rate.interval / 1000
        return shared if shared is not None and complete else own

    async def _count_shared(self, windows: SlidingWindows, item: RateItem) -> Verdict | None:
        redis, now = current_redis(), time.monotonic()
        if redis is None or (self._retry_at is not None and now < self._retry_at):
            return None
        if self._retry_at is not None:
            self._retry_at = now + REDIS_PAUSE  # one call finds out for all
        try:
            async with asyncio.timeout(current_settings().RATE_LIMITER_TIMEOUT_SECONDS):
                prefix = await current_key_prefix().get()
                verdict = await windows.count_shared(item, redis, f"{prefix}limit:")
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


counter = FallbackCounter()
"""Counts every limit of this process."""
