"""What the cache is kept in: within bounds in process; in a Redis that fails, lies, hangs and comes back."""

import asyncio
import pickle
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.core.deps import CacheService as CacheServiceDependency
from app.core.deps import cached
from app.core.runtime import Runtime, connect_redis
from app.core.services.cache import CacheService, MemoryStore, RedisStore
from app.core.services.cache.redis import MAX_POSTPONED, RETRY_SECONDS, TICKS, CircuitBreaker
from app.core.services.cache.redis import TIMEOUT as USUAL_TIMEOUT
from app.core.services.cache.store import ENTRY_BYTES, SWEEP_EVERY
from tests.conftest import backend
from tests.processes import Process, free_port, kill, redis_server, until
from tests.utils import freeze, key_prefix

TIMEOUT = 0.5
"""Longer than by default: where tests run, Redis often has to wait for its turn."""


def counted(store: MemoryStore) -> tuple[int, int, int]:
    """Entries, bytes and tags."""
    return len(store._entries), store._bytes, len(store._tokens)


class TestMemory:
    async def test_holds_so_many_entries_and_the_least_recently_used_gives_way(self) -> None:
        cache = CacheService(MemoryStore(max_items=2))
        await cache.set("a", 1)
        await cache.set("b", 2)
        await cache.get("a")
        await cache.set("c", 3)
        assert [await cache.get(key) for key in "abc"] == [1, None, 3]

    async def test_holds_so_many_bytes(self) -> None:
        store = MemoryStore(max_bytes=10 * 1024)
        cache = CacheService(store)
        for number in range(50):
            await cache.set(f"{number}", "x" * 1024)
            await cache.set(f"{number}", "y" * 1000)  # in its place
        entries, size, _ = counted(store)
        assert 8 * 1024 < size <= 10 * 1024
        assert entries == size // (1000 + ENTRY_BYTES)
        await cache.delete_pattern("*")
        assert counted(store)[:2] == (0, 0)

    async def test_what_has_expired_does_not_pile_up(self) -> None:
        store = MemoryStore()
        cache = CacheService(store)
        with freeze(timedelta(0)):
            for number in range(SWEEP_EVERY - 1):
                await cache.set(f"short {number}", 1, ttl=10)
            assert counted(store)[0] == SWEEP_EVERY - 1
        with freeze(timedelta(seconds=60)):
            await cache.set("long", 1, ttl=60)
            assert counted(store)[0] == 1
            assert await cache.get("long") == 1

    async def test_tags_are_bounded_and_one_that_is_lost_takes_its_entries_along(self) -> None:
        store = MemoryStore(max_items=10)
        cache = CacheService(store)
        await cache.set("old", 1, tags=["first"])
        for number in range(50):
            await cache.set(f"{number}", 1, tags=[f"tag {number}"])
        await cache.get("old")
        assert counted(store)[2] == 10
        assert await cache.get("old") is None
        assert await cache.get("49") == 1

    async def test_a_long_tag_takes_no_more_room_than_a_short_one(self) -> None:
        store = MemoryStore()
        cache = CacheService(store)
        for last in "ab":
            await cache.set(last, 1, tags=["t" * 10_000 + last])
        assert sum(map(len, store._tokens)) < 1000
        await cache.invalidate("t" * 10_000 + "a")
        assert [await cache.get(key) for key in "ab"] == [None, 1]


@asynccontextmanager
async def hanging(process: Process) -> AsyncIterator[None]:
    """A Redis that takes connections and commands, and answers none."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def demoted(redis: Redis) -> AsyncIterator[None]:
    """A Redis that answers what it has, and takes no change."""
    await redis.replicaof("127.0.0.1", "1")
    yield
    await redis.replicaof("NO", "ONE")


class TestCircuitBreaker:
    async def test_a_busy_process_is_not_taken_for_an_absent_redis(self) -> None:
        """Counted are turns of the loop, so however slow the machine is, this comes out the same."""

        async def answer() -> str:
            for _ in range(TICKS - 1):
                time.sleep(0.01)  # noqa: ASYNC251  what else the process does
                await asyncio.sleep(0)
            return "here"

        redis = connect_redis("redis://127.0.0.1:1/0", 0.2)
        breaker = CircuitBreaker(redis, lambda: asyncio.sleep(0), 0.01)
        assert await breaker.call(answer) == "here"
        await redis.aclose()


class SweptRedis:
    """A Redis that refuses the first command, and has something happen while it is looked through."""

    def __init__(self) -> None:
        self.refuses = True
        self.deleted: list[bytes] = []
        self.meanwhile: Callable[[], Coroutine[Any, Any, object]] = lambda: asyncio.sleep(0)

    async def ping(self) -> bool:
        return True

    async def unlink(self, *names: bytes) -> int:
        if self.refuses:
            self.refuses = False
            raise RedisConnectionError
        self.deleted += names
        return len(names)

    async def scan(self, cursor: int, **options: object) -> tuple[int, list[bytes]]:
        await asyncio.create_task(self.meanwhile())
        return 0, []


async def test_what_is_deleted_again_while_postponed_deletions_run_is_deleted_again() -> None:
    redis: Any = SweptRedis()
    store = RedisStore(redis, key_prefix("test:"))
    redis.meanwhile = lambda: store.remove(["a"])
    assert not await store.remove(["a"])
    assert not await store.remove_matching("tests", "b*")
    await until(lambda: store._breaker.recovery is None, 10 + RETRY_SECONDS)
    assert redis.deleted == [b"test:cache:k:a"] * 2
    await store.close()


@pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="needs Redis")
@pytest.mark.needs("redis-server")
class TestRedis:
    @pytest.fixture
    def port(self) -> int:
        return free_port()

    @pytest.fixture
    def server(self, tmp_path: Path, port: int) -> Iterator[Process]:
        """A Redis of the test's own."""
        with redis_server(tmp_path, port) as process:
            yield process

    @pytest.fixture
    def patience(self) -> float:
        return TIMEOUT

    @pytest.fixture
    async def redis(self, port: int, patience: float) -> AsyncIterator[Redis]:
        """As the application connects."""
        redis = connect_redis(f"redis://127.0.0.1:{port}/0", max(0.2, 2 * patience))
        yield redis
        await redis.aclose()

    @pytest.fixture
    async def store(self, redis: Redis, patience: float) -> AsyncIterator[RedisStore]:
        store = RedisStore(redis, key_prefix("kit:"), timeout=patience)
        yield store
        await store.close()

    @pytest.fixture
    def cache(self, store: RedisStore) -> CacheService:
        return CacheService(store, max_value_bytes=10_000)

    async def back(self, store: RedisStore) -> None:
        """Wait until Redis is asked again."""
        await until(lambda: store._breaker.recovery is None, 10 + RETRY_SECONDS)

    async def test_everything_ends_and_lies_below_the_prefix(
        self, server: object, cache: CacheService, redis: Redis
    ) -> None:
        await cache.set("a", 1, ttl=1.5, tags=["t"])
        await cache.set("b", 2)
        lives = {name: await redis.pttl(name) for name in await redis.keys("*")}
        assert set(lives) == {b"kit:cache:k:tests:a", b"kit:cache:k:tests:b", b"kit:cache:t:tests:t"}
        assert 0 < lives.pop(b"kit:cache:k:tests:a") <= 1500
        assert all(1500 < life <= 86_400_000 for life in lives.values())

    async def test_a_tag_lives_as_long_as_what_was_stored_last_under_it(
        self, server: object, cache: CacheService, redis: Redis
    ) -> None:
        await cache.set("a", 1, tags=["t"])
        await redis.pexpire("kit:cache:t:tests:t", 1000)
        assert await cache.get_or_set("b", lambda: cache.namespace("x").get("y", 2), tags=["t"]) == 2
        assert await redis.pttl("kit:cache:t:tests:t") > 80_000_000

    @pytest.mark.parametrize(
        "poison",
        [
            pickle.dumps({"a": 1}),
            b"\xff{not json",
            b'{}\n{"a": [1',
            b"{}\n" + b"[" * 5000 + b"]" * 5000,
            b"{}\n" + b'"' + b"x" * 10_000 + b'"',
            b"[]\n1",
            b"17",
            b'{"tests:t": 1}\n1',
            b'{"\\ud800": "1"}\n1',
        ],
        ids=lambda poison: str(poison[:12]),
    )
    async def test_what_the_cache_has_not_written_is_a_miss(
        self, server: object, cache: CacheService, redis: Redis, poison: bytes, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for _ in range(2):
            await redis.set("kit:cache:k:tests:a", poison)
            assert await cache.get("a", "absent") == "absent"
        assert capfd.readouterr().out.count("cannot be read") <= 1
        await redis.set("kit:cache:k:tests:a", poison)
        assert await cache.get_or_set("a", lambda: cache.get("b", 3), tags=["t"]) == 3
        assert await cache.get("a") == 3

    async def test_another_kind_of_value_is_a_miss(self, server: object, cache: CacheService, redis: Redis) -> None:
        await redis.lpush("kit:cache:k:tests:a", "1")
        await redis.lpush("kit:cache:t:tests:t", "1")
        assert await cache.get("a", "absent") == "absent"
        await cache.set("a", 1, tags=["t"])
        assert await cache.get("a", "absent") == "absent"
        await cache.invalidate("t")
        await cache.set("a", 1, tags=["t"])
        assert await cache.get("a") == 1

    async def test_keys_that_are_no_text_disturb_no_pattern(
        self, server: object, cache: CacheService, redis: Redis
    ) -> None:
        await redis.set(b"kit:cache:k:tests:a\xff", 1)
        await cache.set("a\ud800", 1)
        assert await cache.get("a\ud800") == 1
        await cache.delete_pattern("a*")
        assert await redis.keys("*") == []

    async def test_a_redis_that_is_full_keeps_nothing_and_says_so_once(
        self, server: object, cache: CacheService, redis: Redis, capfd: pytest.CaptureFixture[str]
    ) -> None:
        await cache.set("a", 1)
        await redis.config_set("maxmemory", 1)
        for _ in range(3):
            await cache.set("b", 1, tags=["t"])
        assert await cache.get("a") == 1
        assert await cache.delete("a")
        assert capfd.readouterr().out.count("refuses to keep") == 1

    async def test_refused_costs_nothing_and_is_logged_once(
        self, cache: CacheService, capfd: pytest.CaptureFixture[str]
    ) -> None:
        await cache.set("a", 1)
        assert await cache.get("a", "absent") == "absent"
        assert await cache.get_or_set("a", lambda: cache.get("b", 3), tags=["t"]) == 3
        assert not await cache.delete("a")
        assert not await cache.delete_pattern("*")
        assert not await cache.invalidate("t")
        assert capfd.readouterr().out.count("going on without a cache") == 1

    async def test_hanging_costs_one_wait_and_then_nothing(
        self, server: Process, cache: CacheService, store: RedisStore
    ) -> None:
        await cache.set("a", 1)
        async with hanging(server):
            begun = time.perf_counter()
            assert await asyncio.gather(*(cache.get("a") for _ in range(200))) == [None] * 200
            first = time.perf_counter() - begun
            assert TIMEOUT <= first < 10 * TIMEOUT
            begun = time.perf_counter()
            for number in range(100):
                await cache.get_or_set("a", lambda: cache.get("b", 1), tags=["t"])
                await cache.set(f"{number}", 1)
            assert time.perf_counter() - begun < 10 * TIMEOUT
        await self.back(store)
        assert await cache.get("a") == 1

    @pytest.mark.parametrize("patience", [USUAL_TIMEOUT])
    async def test_a_request_is_answered_while_redis_hangs(
        self, server: Process, kit: Runtime, cache: CacheService
    ) -> None:
        web = FastAPI()

        @web.get("/")
        @cached(ttl=60, tags=["t"])
        async def root(service: CacheServiceDependency) -> int:
            await service.set("seen", 1)
            await service.invalidate("seen")
            return 1

        before, kit.cache = kit.cache, cache
        try:
            async with (
                httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://test") as http,
                hanging(server),
            ):
                begun = time.perf_counter()
                for _ in range(50):
                    assert (await http.get("/")).json() == 1
                assert time.perf_counter() - begun < 50 * 0.05  # each waiting anew would take three times as long
        finally:
            kit.cache = before

    @pytest.mark.parametrize("hang", [True, False])
    async def test_what_should_have_been_forgotten_is_forgotten_before_anything_is_read(
        self,
        server: Process,
        cache: CacheService,
        store: RedisStore,
        redis: Redis,
        hang: bool,
    ) -> None:
        for key in ("deleted", "set", "fits 1", "fits 2", "stays"):
            await cache.set(key, "old")
        await cache.set("tagged", "old", tags=["t"])
        async with hanging(server) if hang else demoted(redis):
            await cache.delete("deleted")
            await cache.set("set", "new")
            await cache.delete_pattern("fits ?")
            await cache.invalidate("t")
        await self.back(store)
        keys = ("deleted", "set", "fits 1", "fits 2", "tagged", "stays")
        assert [await cache.get(key) for key in keys] == [None] * 5 + ["old"]

    async def test_beyond_what_can_be_remembered_everything_is_forgotten(
        self, server: Process, cache: CacheService, store: RedisStore, redis: Redis
    ) -> None:
        await redis.set("other", 1)
        await cache.set("stays?", "old")
        async with hanging(server):
            for number in range(MAX_POSTPONED + 1):
                await cache.delete(f"{number}")
            assert len(store._postponed) <= MAX_POSTPONED
        await self.back(store)
        assert await cache.get("stays?") is None
        assert await redis.keys("*") == [b"other"]

    async def test_a_second_absence_is_logged_again(
        self, tmp_path: Path, port: int, cache: CacheService, store: RedisStore, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(2):
            with redis_server(tmp_path, port) as server:
                await self.back(store)
                await cache.set("a", number)
                assert await cache.get("a") == number
                kill(server)
                assert await cache.get("a") is None
        assert capfd.readouterr().out.count("going on without a cache") == 2
