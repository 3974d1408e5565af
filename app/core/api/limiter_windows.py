"""Exact sliding windows for the limiter: in process, or in Redis."""

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

MAX_KEYS = 20_000


@dataclass(frozen=True)
class Verdict(Decision):
    """Whether a call fits, how many more do, and in how many milliseconds the next one is added to these."""

    remaining: int = 0
    reset_ms: int = 0


class SlidingWindow(StateAlgorithm):
    """At most `limit` in any `interval`. The state is the times of what was admitted; refusals cost nothing.

    The library's own state algorithm, GCRA, lets a burst and its refill through within one interval.
    """

    def initial(self, rates: list[Rate]) -> State:
        return ()

    def step(self, rates: list[Rate], state: State, now: int, weight: int) -> tuple[State, Verdict]:
        (rate,) = rates
        live = state[bisect_right(state, now - rate.interval) :]
        surplus = len(live) + weight - rate.limit
        if weight > rate.limit:
            return live, Verdict(failing_rate=rate)
        if surplus > 0:
            wait = int(live[surplus - 1]) + rate.interval - now
            return live, Verdict(failing_rate=rate, retry_after_ms=wait, remaining=weight - surplus, reset_ms=wait)
        live += (now,) * weight
        return live, Verdict(remaining=-surplus, reset_ms=int(live[0]) + rate.interval - now)

    def redis_script(self) -> str:
        return _SCRIPT

    def redis_args(self, rates: list[Rate]) -> list[int | float]:
        return [rates[0].interval, rates[0].limit]


# Redis's own clock counts: those of the app's hosts differ. The store sends now, weight, TTL and the number of rates
# first. `used` makes the member unique where two calls meet in one microsecond.
_SCRIPT = """
local weight, interval, limit = tonumber(ARGV[2]), tonumber(ARGV[5]), tonumber(ARGV[6])
if weight > limit then return {0, -1, 0, 0} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local stamp = string.format('%.0f', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - interval * 1000))
local used = redis.call('ZCARD', KEYS[1])
local function until_leaves(place)
  local call = redis.call('ZRANGE', KEYS[1], place, place, 'WITHSCORES')
  return math.ceil((tonumber(call[2]) + interval * 1000 - now) / 1000)
end
local surplus = used + weight - limit
if surplus > 0 then
  local wait = until_leaves(surplus - 1)
  return {0, wait, weight - surplus, wait}
end
for i = 1, weight do redis.call('ZADD', KEYS[1], stamp, stamp .. '-' .. (used + i)) end
redis.call('PEXPIRE', KEYS[1], interval)
return {-1, 0, -surplus, until_leaves(0)}
"""

_ALGORITHM = SlidingWindow()
_CLOCK = MonotonicClock()


class _RedisWindow(RedisStateStore):
    @staticmethod
    def _decision(rates: list[Rate], reply: Any) -> Verdict:
        failing, wait, remaining, reset = map(int, reply)
        if failing < 0:
            return Verdict(remaining=remaining, reset_ms=reset)
        return Verdict(rates[failing], wait if wait >= 0 else None, remaining, reset)


def _check(window: StateStore, rate: Rate, item: RateItem) -> Any:
    return window.check(_ALGORITHM, [rate], item.timestamp, item.weight)


class Windows(BucketFactory):
    """One window per key; idle ones are dropped, and at most `max_keys` are kept."""

    def __init__(self, rate: Rate, max_keys: int = MAX_KEYS) -> None:
        self.rate = rate
        self._max_keys = max_keys
        self._used: OrderedDict[str, tuple[int, InMemoryStateStore]] = OrderedDict()

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        return RateItem(name, _CLOCK.now(), weight)

    def get(self, item: RateItem) -> StateBucket:
        """The window in this process, as the library's limiter asks for it."""
        return StateBucket([self.rate], _ALGORITHM, self._window(item))

    def admit(self, item: RateItem) -> Verdict:
        """Count a call in this process."""
        verdict: Verdict = _check(self._window(item), self.rate, item)
        return verdict

    async def admit_shared(self, item: RateItem, redis: Redis, prefix: str) -> Verdict:
        """Count a call in Redis, in one round trip."""
        verdict: Verdict = await _check(_RedisWindow(redis, prefix + item.name), self.rate, item)
        return verdict

    def __len__(self) -> int:
        return len(self._used)

    def _window(self, item: RateItem) -> InMemoryStateStore:
        known = self._used.pop(item.name, None)
        window = known[1] if known else InMemoryStateStore()
        self._used[item.name] = (item.timestamp, window)
        self._sweep(item.timestamp)
        return window

    def _sweep(self, now: int) -> None:
        # least recently used first, and all have the same interval
        while self._used:
            name, (seen, _) = next(iter(self._used.items()))
            if seen + self.rate.interval > now and len(self._used) <= self._max_keys:
                break
            del self._used[name]


@cache
def windows(times: int, interval: int) -> Windows:
    """The windows of this process for a rate: limits of one name and rate share them."""
    return Windows(Rate(times, interval))
