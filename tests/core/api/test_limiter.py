"""Limits: exact under concurrency, apart for each client and route, fine without Redis."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from pyrate_limiter import Rate
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.core.api import ConfigurableRateLimiter
from app.core.api.route_checks import misplaced_limits, warn_about_routes
from app.core.api.sliding_windows import REDIS_PAUSE, FallbackCounter, SlidingWindows, windows_of
from app.core.identity import client_address, identifies_caller
from app.core.runtime import connect_redis, runtime
from tests.core.api.conftest import Serve, make_app
from tests.core.api.test_errors import check
from tests.core.log.capture import captured_log


def limited(path: str, *limits: ConfigurableRateLimiter, router: APIRouter | None = None) -> APIRouter:
    """A router with one route that has the limits."""
    router = router or APIRouter(prefix="/t")

    @router.get(path, dependencies=[Depends(limit) for limit in limits])
    async def endpoint() -> str:
        return "served"

    # nothing else has this name: neither an earlier test nor an earlier run counts
    endpoint.__qualname__ = f"endpoint-{uuid4()}"
    return router


async def statuses(http: httpx.AsyncClient, path: str, times: int) -> list[int]:
    return [(await http.get(path)).status_code for _ in range(times)]


class TestLimit:
    async def test_the_next_call_is_a_429_that_says_when(self, serve: Serve) -> None:
        http = await serve(limited("/x", ConfigurableRateLimiter(times=3, seconds=60)), RATE_LIMITER_ENABLED=True)
        assert await statuses(http, "/t/x", 3) == [200, 200, 200]
        answer = await http.get("/t/x")
        check(answer, 429, "rate_limited")
        assert 55 <= int(answer.headers["retry-after"]) <= 60

    async def test_sixty_at_once_admit_three(self, serve: Serve) -> None:
        http = await serve(limited("/x", ConfigurableRateLimiter(times=3, seconds=60)), RATE_LIMITER_ENABLED=True)
        answers = await asyncio.gather(*(http.get("/t/x") for _ in range(60)))
        assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 57}

    async def test_calls_pass_again_when_the_window_has_passed(self, serve: Serve) -> None:
        http = await serve(limited("/x", ConfigurableRateLimiter(times=2, seconds=2)), RATE_LIMITER_ENABLED=True)
        begun = time.monotonic()
        assert await statuses(http, "/t/x", 3) == [200, 200, 429]
        while (await http.get("/t/x")).status_code == 429:
            assert time.monotonic() < begun + 20
            await asyncio.sleep(0.02)
        assert time.monotonic() - begun >= 1.99

    async def test_off_means_off(self, serve: Serve) -> None:
        http = await serve(limited("/x", ConfigurableRateLimiter(times=1)), RATE_LIMITER_ENABLED=False)
        assert await statuses(http, "/t/x", 5) == [200] * 5

    @pytest.mark.parametrize(("times", "seconds"), [(0, 60), (-1, 60), (1, 0)])
    def test_a_limit_of_nothing_is_refused(self, times: int, seconds: int) -> None:
        with pytest.raises(ValueError, match="at least one call"):
            ConfigurableRateLimiter(times=times, seconds=seconds)


class TestScope:
    async def test_routes_of_a_limited_router_count_apart(self, serve: Serve) -> None:
        router = APIRouter(prefix="/t", dependencies=[Depends(ConfigurableRateLimiter(times=1))])
        http = await serve(limited("/b", router=limited("/a", router=router)), RATE_LIMITER_ENABLED=True)
        assert await statuses(http, "/t/a", 2) == [200, 429]
        assert await statuses(http, "/t/b", 2) == [200, 429]

    async def test_different_paths_of_one_route_count_together(self, serve: Serve) -> None:
        http = await serve(limited("/x/{name}", ConfigurableRateLimiter(times=1)), RATE_LIMITER_ENABLED=True)
        assert [(await http.get(f"/t/x/{name}")).status_code for name in "ab"] == [200, 429]

    async def test_limits_of_one_name_count_together(self, serve: Serve) -> None:
        name = str(uuid4())
        router = limited("/a", ConfigurableRateLimiter(times=2, name=name))
        http = await serve(
            limited("/b", ConfigurableRateLimiter(times=2, name=name), router=router), RATE_LIMITER_ENABLED=True
        )
        assert await statuses(http, "/t/a", 1) + await statuses(http, "/t/b", 2) == [200, 200, 429]

    async def test_a_router_and_a_route_with_one_limit_count_once(self, serve: Serve) -> None:
        router = APIRouter(prefix="/t", dependencies=[Depends(ConfigurableRateLimiter(times=2))])
        http = await serve(limited("/x", ConfigurableRateLimiter(times=2), router=router), RATE_LIMITER_ENABLED=True)
        assert await statuses(http, "/t/x", 3) == [200, 200, 429]

    async def test_of_two_limits_the_stricter_holds(self, serve: Serve) -> None:
        limits = ConfigurableRateLimiter(times=1, seconds=60), ConfigurableRateLimiter(times=9, seconds=3600)
        http = await serve(limited("/x", *limits), RATE_LIMITER_ENABLED=True)
        assert await statuses(http, "/t/x", 2) == [200, 429]


class TestClients:
    async def test_clients_count_apart_and_cannot_claim_to_be_another(self, serve: Serve) -> None:
        router = limited("/x", ConfigurableRateLimiter(times=1))
        first = await serve(router, RATE_LIMITER_ENABLED=True)
        second = await serve(router, client=("192.0.2.2", 1), RATE_LIMITER_ENABLED=True)
        assert (await first.get("/t/x")).status_code == 200
        assert (await first.get("/t/x", headers={"X-Forwarded-For": "9.9.9.9"})).status_code == 429
        assert (await second.get("/t/x")).status_code == 200

    async def test_a_key_of_ones_own(self, serve: Serve) -> None:
        async def tenant(request: Request) -> str:
            return request.headers["x-tenant"]

        http = await serve(limited("/x", ConfigurableRateLimiter(times=1, key=tenant)), RATE_LIMITER_ENABLED=True)
        got = [(await http.get("/t/x", headers={"x-tenant": name})).status_code for name in ("a", "a", "b")]
        assert got == [200, 429, 200]

    @pytest.mark.parametrize(
        ("host", "identity"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("unix-socket", "unix-socket"),
            ("x" * 500, "x" * 64),
        ],
    )
    async def test_addresses(self, host: str, identity: str) -> None:
        assert await client_address(Request({"type": "http", "client": (host, 1)})) == identity

    async def test_no_address_at_all(self) -> None:
        assert await client_address(Request({"type": "http", "client": None})) == "unknown"


class TestWindows:
    def test_memory_is_bounded(self) -> None:
        limit = SlidingWindows(Rate(1, 60_000), max_keys=10)
        for number in range(1000):
            limit.get(limit.wrap_item(f"client-{number}"))
        assert len(limit) == 10

    def test_idle_windows_are_dropped(self) -> None:
        limit = SlidingWindows(Rate(1, 1000))
        item = limit.wrap_item("idle")
        limit.get(item)
        later = limit.wrap_item("busy")
        later.timestamp = item.timestamp + 1001
        limit.get(later)
        assert len(limit) == 1


@pytest.fixture
def redis(app: FastAPI) -> Iterator[Redis]:
    """The Redis of this run."""
    found = runtime().redis
    if found is None:
        pytest.skip("needs Redis")
    yield found
    runtime().redis = found


class TestRedis:
    async def test_windows_are_kept_there_and_expire(self, serve: Serve, redis: Redis) -> None:
        await asyncio.sleep(REDIS_PAUSE)  # a test before this one may have left the limits of this process alone
        name = str(uuid4())
        http = await serve(
            limited("/x", ConfigurableRateLimiter(times=2, seconds=30, name=name)), RATE_LIMITER_ENABLED=True
        )
        assert await statuses(http, "/t/x", 3) == [200, 200, 429]
        prefix = runtime().settings.REDIS_KEY_PREFIX
        keys = [key async for key in redis.scan_iter(f"{prefix}limit:{name}*", count=1000)]
        assert len(keys) == 1
        assert 0 < await redis.pttl(keys[0]) <= 30_000

    async def test_while_it_answers_only_its_clock_counts(self, redis: Redis) -> None:
        limit, key = windows_of(1, 60_000), str(uuid4())
        assert limit.count(limit.wrap_item(key)).allowed
        decisions = [await FallbackCounter().count(limit, key) for _ in range(2)]
        assert [decision.allowed for decision in decisions] == [True, False]

    async def test_two_processes_share_them(self, redis: Redis) -> None:
        name = str(uuid4())
        one, other = SlidingWindows(Rate(3, 60_000)), SlidingWindows(Rate(3, 60_000))
        settings = runtime().settings
        # patient, unlike the service's own: this is about the window, not about time-outs
        patient = Redis.from_url(str(settings.redis_url), socket_timeout=10)
        item, prefix = one.wrap_item(name), str(settings.REDIS_KEY_PREFIX)
        decisions = await asyncio.gather(
            *(limit.count_shared(item, patient, prefix) for limit in (one, other) for _ in range(30))
        )
        await patient.aclose()
        assert sum(decision.allowed for decision in decisions) == 3


class TestRedisAway:
    @pytest.fixture
    def dead_redis(self, app: FastAPI) -> Iterator[None]:
        """A Redis that nothing listens for."""
        usual = runtime().redis
        runtime().redis = Redis(port=1, socket_connect_timeout=0.2, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
        yield
        runtime().redis = usual

    @pytest.fixture
    def usual_redis(self, app: FastAPI) -> Iterator[None]:
        """Puts back the Redis that the test exchanges."""
        usual = runtime().redis
        yield
        runtime().redis = usual

    async def test_each_process_counts_for_itself(self, serve: Serve, dead_redis: None) -> None:
        http = await serve(limited("/x", ConfigurableRateLimiter(times=3)), RATE_LIMITER_ENABLED=True)
        assert await statuses(http, "/t/x", 5) == [200, 200, 200, 429, 429]

    async def test_it_is_said_once(self, dead_redis: None) -> None:
        counter = FallbackCounter()
        with captured_log() as lines:
            await asyncio.gather(*(counter.count(windows_of(1, 60_000), str(uuid4())) for _ in range(9)))
        assert [line["event"] for line in lines.all()] == ["limits are counted per process: Redis does not answer"]

    async def test_one_that_accepts_and_never_answers_costs_a_quarter_of_a_second_once(
        self, app: FastAPI, usual_redis: None
    ) -> None:
        asked = 0

        async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            await reader.read()
            writer.close()

        server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        counter, key = FallbackCounter(), str(uuid4())

        async def allowed() -> bool:
            return (await counter.count(windows_of(3, 60_000), key)).allowed

        async with connect_redis(f"redis://{host}:{port}/0", 0.2) as silent:
            runtime().redis = silent
            begun = time.monotonic()
            assert await allowed()
            assert time.monotonic() - begun < 2.5  # measured: 0.21 s
            later = await asyncio.gather(*(allowed() for _ in range(60)))
        assert later.count(True) == 2
        assert asked <= 2  # sixty waits would be sixty connections; one may look whether it is back
        server.close()
        await server.wait_closed()

    async def test_while_it_is_away_one_call_at_a_time_finds_out(self, app: FastAPI, usual_redis: None) -> None:
        asked = 0

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        counter = FallbackCounter()

        async def ask() -> None:
            await counter.count(windows_of(1, 60_000), str(uuid4()))

        async with connect_redis(f"redis://{host}:{port}/0", 0.2) as broken:
            runtime().redis = broken
            await ask()
            asked = 0
            give_up = time.monotonic() + 10 * REDIS_PAUSE
            while not asked and time.monotonic() < give_up:
                await asyncio.gather(*(ask() for _ in range(20)))
                await asyncio.sleep(0.05)
        server.close()
        await server.wait_closed()
        assert asked == 1

    async def test_what_it_admitted_before_counts_on(self, serve: Serve, redis: Redis) -> None:
        http = await serve(limited("/x", ConfigurableRateLimiter(times=3)), RATE_LIMITER_ENABLED=True)
        assert await statuses(http, "/t/x", 2) == [200, 200]
        runtime().redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
        assert await statuses(http, "/t/x", 2) == [200, 429]

    async def test_calls_counted_here_while_one_finds_it_back_count_on(self, redis: Redis) -> None:
        counter, limit, key = FallbackCounter(), windows_of(3, round(REDIS_PAUSE * 1000)), str(uuid4())
        runtime().redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
        await counter.count(limit, key)
        await asyncio.sleep(REDIS_PAUSE)  # away for longer than the window
        runtime().redis = redis
        decisions = await asyncio.gather(*(counter.count(limit, key) for _ in range(20)))
        assert [decision.allowed for decision in decisions].count(True) == 3

    async def test_it_is_used_again_when_it_is_back(self, serve: Serve, redis: Redis) -> None:
        counter = FallbackCounter()
        limit = windows_of(1, 60_000)
        with captured_log() as lines:
            runtime().redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
            await counter.count(limit, str(uuid4()))
            runtime().redis = redis
            deadline = time.monotonic() + REDIS_PAUSE + 5
            while not lines.all("limits are shared through Redis again"):
                assert time.monotonic() < deadline
                await counter.count(limit, str(uuid4()))
                await asyncio.sleep(0.05)


class TestOrder:
    """A limit that is meant for callers comes after the dependency that identifies them."""

    def test_those_that_come_before_are_named_at_the_start(self) -> None:
        @identifies_caller
        async def caller() -> str:
            return "ann"

        async def of_caller(name: Annotated[str, Depends(caller)]) -> str:
            return name

        limit = ConfigurableRateLimiter(times=7, seconds=60)
        by_address = ConfigurableRateLimiter(times=9, seconds=60, key=client_address)
        router = APIRouter(dependencies=[Depends(by_address)])

        @router.get("/public", dependencies=[Depends(limit)])
        async def public() -> None: ...

        @router.get("/right", dependencies=[Depends(of_caller), Depends(limit)])
        async def right() -> None: ...

        @router.get("/wrong", dependencies=[Depends(limit), Depends(of_caller)])
        async def wrong() -> None: ...

        @router.websocket("/wrong-too", dependencies=[Depends(limit)])
        async def wrong_too(socket: WebSocket, name: Annotated[str, Depends(of_caller)]) -> None: ...

        application = make_app(router)
        assert [one.route.path for one in misplaced_limits(application.routes)] == ["/wrong", "/wrong-too"]
        with captured_log() as lines:
            warn_about_routes(application.routes)
        assert "the limit of 7 in 60 s counts addresses instead of callers" in lines.text
