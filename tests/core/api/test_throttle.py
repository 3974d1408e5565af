"""Throttles of services: several windows at once, given back, bounded, fine without Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from fastapi import FastAPI
from pyrate_limiter import Rate
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.core.api.sliding_windows import REDIS_PAUSE, FallbackCounter, SlidingWindow, SlidingWindows, Verdict
from app.core.api.throttle import Throttle
from app.core.exceptions import RateLimitedError
from app.core.runtime import runtime

GROWING = [Rate(3, 30_000), Rate(4, 120_000), Rate(5, 900_000)]


class Clock:
    """Windows of one key, by a clock that the test sets."""

    def __init__(self, rates: list[Rate]) -> None:
        self.rates, self.algorithm = rates, SlidingWindow()
        self.state = self.algorithm.initial(rates)

    def at(self, seconds: float, weight: int = 1) -> Verdict:
        self.state, verdict = self.algorithm.step(self.rates, self.state, round(seconds * 1000), weight)
        return verdict


class TestSeveralWindows:
    def test_delays_grow(self) -> None:
        clock = Clock(GROWING)
        assert [clock.at(second).allowed for second in (0, 1, 2)] == [True] * 3
        waits = []
        for second in (2, 30, 120):
            refused = clock.at(second)
            waits.append((refused.allowed, refused.retry_after_ms, refused.remaining))
            again = second + refused.retry_after_ms / 1000
            assert [clock.at(again - 0.001).allowed, clock.at(again).allowed] == [False, True]
        assert waits == [(False, 28_000, 0), (False, 90_000, 0), (False, 780_000, 0)]

    def test_no_period_holds_more_than_its_limit_however_the_calls_are_spread(self) -> None:
        clock, admitted = Clock(GROWING), []
        for second in range(0, 3 * 900, 7):
            if clock.at(second).allowed:
                admitted.append(second)
        for times, seconds in ((3, 30), (4, 120), (5, 900)):
            assert max(sum(start <= one < start + seconds for one in admitted) for start in admitted) <= times
        assert len(admitted) >= 15, "a refused call must cost nothing"

    def test_the_tightest_window_is_told(self) -> None:
        clock = Clock([Rate(2, 1000), Rate(10, 60_000)])
        assert clock.at(0).remaining == 1
        assert (clock.at(0.5).remaining, clock.at(0.5).retry_after_ms) == (0, 500)
        assert (clock.at(5).remaining, clock.at(70).remaining) == (1, 1)

    def test_what_is_given_back_does_not_count(self) -> None:
        clock = Clock(GROWING)
        for second in range(50):
            assert clock.at(second).allowed
            assert clock.at(second, weight=-1).allowed
        assert clock.at(60, weight=-1).allowed  # nothing left to give back
        assert clock.state == ()


@pytest.fixture
def throttle(app: FastAPI) -> Throttle:
    """Two calls in a minute, three in an hour; of this test alone."""
    return Throttle(str(uuid4()), (2, 60), (3, 3600))


@pytest.fixture
def redis(app: FastAPI) -> Iterator[Redis]:
    """The Redis of this run."""
    found = runtime().redis
    if found is None:
        pytest.skip("needs Redis")
    yield found
    runtime().redis = found


@pytest.fixture
async def patient(redis: Redis) -> AsyncIterator[Redis]:
    """A client of it that waits longer than the service: this is about windows, not about time-outs."""
    async with Redis.from_url(str(runtime().settings.redis_url), socket_timeout=10) as client:
        yield client


class TestThrottle:
    async def test_the_next_call_is_refused_and_says_when(self, throttle: Throttle) -> None:
        for _ in range(2):
            (await throttle.count("ann")).require()
        with pytest.raises(RateLimitedError) as refused:
            (await throttle.count("ann")).require()
        assert refused.value.retry_after is not None
        assert 55 <= refused.value.retry_after <= 60
        (await throttle.count("bob")).require()

    async def test_of_sixty_at_once_two_pass(self, throttle: Throttle) -> None:
        verdicts = await asyncio.gather(*(throttle.count("ann") for _ in range(60)))
        assert sum(verdict.allowed for verdict in verdicts) == 2

    async def test_one_given_back_is_free_again(self, throttle: Throttle) -> None:
        for _ in range(5):
            (await throttle.count("ann")).require()
            await throttle.give_back("ann")
        assert [(await throttle.count("ann")).allowed for _ in range(3)] == [True, True, False]

    @pytest.mark.parametrize("key", ["", "x" * 100_000, "\ud800", "a\0b"], ids=["empty", "long", "surrogate", "nul"])
    async def test_any_text_is_a_key(self, throttle: Throttle, key: str) -> None:
        assert [(await throttle.count(key)).allowed for _ in range(3)] == [True, True, False]

    async def test_memory_is_bounded(self) -> None:
        windows = SlidingWindows(*GROWING, max_keys=10)
        for number in range(1000):
            windows.count(windows.wrap_item(str(number)))
            windows.count(windows.wrap_item(f"given back {number}", -1))
        assert len(windows) == 10


class TestRedis:
    async def test_no_key_shows_whom_it_counts_and_each_expires(self, throttle: Throttle, redis: Redis) -> None:
        await asyncio.sleep(REDIS_PAUSE)  # a test before this one may have left the limits of this process alone
        before = {key async for key in redis.scan_iter("*limit:*", count=1000)}
        await throttle.count("ann@example.com")
        (key,) = {key async for key in redis.scan_iter("*limit:*", count=1000)} - before
        assert b"ann" not in bytes(key)
        assert 3_590_000 < await redis.pttl(key) <= 3_600_000
        await throttle.give_back("ann@example.com")
        assert not await redis.exists(key)

    async def test_two_processes_count_together_and_give_back(self, patient: Redis) -> None:
        one, other = SlidingWindows(*GROWING), SlidingWindows(*GROWING)
        name, prefix = str(uuid4()), f"{runtime().settings.REDIS_KEY_PREFIX}limit:"

        async def count(windows: SlidingWindows, weight: int = 1) -> Verdict:
            return await windows.count_shared(windows.wrap_item(name, weight), patient, prefix)

        verdicts = await asyncio.gather(*(count(windows) for windows in (one, other) for _ in range(30)))
        assert sum(verdict.allowed for verdict in verdicts) == 3
        assert (await count(one, -1)).allowed
        verdict = await count(other)
        assert (verdict.allowed, verdict.remaining) == (True, 0)
        refused = await count(one)
        assert not refused.allowed
        assert 25_000 < refused.retry_after_ms <= 30_000

    async def test_it_decides_as_this_process_does(self, patient: Redis) -> None:
        rates = [Rate(2, 300), Rate(3, 1500), Rate(4, 60_000)]
        windows, prefix, key = SlidingWindows(*rates), f"{runtime().settings.REDIS_KEY_PREFIX}limit:", str(uuid4())
        admitted: list[tuple[float, int]] = []
        begun = time.monotonic()
        while len(admitted) < 4:
            assert time.monotonic() < begun + 30
            verdict = await windows.count_shared(windows.wrap_item(key), patient, prefix)
            if verdict.allowed:
                admitted.append((time.monotonic() - begun, verdict.remaining))
            await asyncio.sleep(0.01)
        assert [remaining for _, remaining in admitted] == [1, 0, 0, 0]
        assert admitted[2][0] >= 0.29
        assert admitted[3][0] >= 1.49
        refused = await windows.count_shared(windows.wrap_item(key), patient, prefix)
        assert not refused.allowed
        assert 25_000 < refused.retry_after_ms <= 60_000

    async def test_what_it_admitted_counts_on_while_it_is_away(self, throttle: Throttle, redis: Redis) -> None:
        assert [(await throttle.count("ann")).allowed for _ in range(2)] == [True, True]
        runtime().redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
        assert not (await throttle.count("ann")).allowed
        await throttle.give_back("ann")
        assert [(await throttle.count("ann")).allowed for _ in range(2)] == [True, False]

    async def test_two_counters_share_them(self, redis: Redis) -> None:
        """Each process has a counter and windows of its own."""
        name, counted = str(uuid4()), 0
        for _ in range(3):
            windows = SlidingWindows(*GROWING)
            counted += sum([(await FallbackCounter().count(windows, name)).allowed for _ in range(3)])
        assert counted == 3
