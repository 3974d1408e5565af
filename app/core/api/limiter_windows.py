"""Exact sliding windows for the limiter: in process, or in Redis."""

from collections import OrderedDict
from functools import cache

from pyrate_limiter import BucketFactory, Decision, MonotonicClock, Rate, RateItem, RedisStateStore, StateBucket
from pyrate_limiter.abstracts import StateAlgorithm
from pyrate_limiter.abstracts.algorithm import ADMITTED, State
from redis.asyncio import Redis

MAX_KEYS = 20_000


class SlidingWindow(StateAlgorithm):
    """At most `limit` in any `interval`. The state is the times of what was admitted; refusals cost nothing.

    The library's own state algorithm, GCRA, lets a burst and its refill through within one interval.
    """

    def initial(self, rates: list[Rate]) -> State:
        return ()

    def step(self, rates: list[Rate], state: State, now: int, weight: int) -> tuple[State, Decision]:
        (rate,) = rates
        live = tuple(moment for moment in state if moment > now - rate.interval)
        surplus = len(live) + weight - rate.limit
        if surplus > 0:
            wait = int(live[surplus - 1]) + rate.interval - now if weight <= rate.limit else None
            return live, Decision(failing_rate=rate, retry_after_ms=wait)
        return live + (now,) * weight, ADMITTED

    def redis_script(self) -> str:
        return _SCRIPT

    def redis_args(self, rates: list[Rate]) -> list[int | float]:
        return [rates[0].interval, rates[0].limit]


# Redis's own clock counts: those of the app's hosts differ. The store sends now, weight, TTL and the number of rates
# first. `used` makes the member unique where two calls meet in one microsecond.
_SCRIPT = """
local weight, interval, limit = tonumber(ARGV[2]), tonumber(ARGV[5]), tonumber(ARGV[6])
if weight > limit then return {0, -1} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local stamp = string.format('%.0f', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - interval * 1000))
local used = redis.call('ZCARD', KEYS[1])
local surplus = used + weight - limit
if surplus > 0 then
  local oldest = redis.call('ZRANGE', KEYS[1], surplus - 1, surplus - 1, 'WITHSCORES')
  return {0, math.ceil((tonumber(oldest[2]) + interval * 1000 - now) / 1000)}
end
for i = 1, weight do redis.call('ZADD', KEYS[1], stamp, stamp .. '-' .. (used + i)) end
redis.call('PEXPIRE', KEYS[1], interval)
return {-1, 0}
"""

_ALGORITHM = SlidingWindow()
_CLOCK = MonotonicClock()


class Windows(BucketFactory):
    """One window per key; idle ones are dropped, and at most `max_keys` are kept."""

    def __init__(self, rate: Rate, max_keys: int = MAX_KEYS) -> None:
        self.rate = rate
        self._max_keys = max_keys
        self._used: OrderedDict[str, tuple[int, StateBucket]] = OrderedDict()

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        return RateItem(name, _CLOCK.now(), weight)

    def get(self, item: RateItem) -> StateBucket:
        """The window in this process."""
        known = self._used.pop(item.name, None)
        bucket = known[1] if known else StateBucket([self.rate], _ALGORITHM)
        self._used[item.name] = (item.timestamp, bucket)
        self._sweep(item.timestamp)
        return bucket

    def shared(self, item: RateItem, redis: Redis, prefix: str) -> StateBucket:
        """The window in Redis."""
        return StateBucket([self.rate], _ALGORITHM, RedisStateStore(redis, prefix + item.name))

    def __len__(self) -> int:
        return len(self._used)

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
