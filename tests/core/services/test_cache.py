"""The cache, in process and in Redis."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from app.core.runtime import Runtime
from app.core.services.cache import CacheServiceInterface, MemoryCacheService, RedisCacheService


class Seat(BaseModel):
    """A value."""

    row: str
    taken_at: datetime


class FlakyRedis(Redis):
    """A Redis that answers `value`, or is away."""

    def __init__(self, value: bytes = b"1") -> None:
        super().__init__()
        self.value = value
        self.away = False
        self.commands: list[tuple[Any, ...]] = []

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.away:
            raise RedisConnectionError("away")
        self.commands.append(args)
        return self.value


@pytest.fixture
def cache(kit: Runtime) -> CacheServiceInterface:
    """The cache of the chosen backend."""
    return kit.cache


@pytest.fixture
def key() -> str:
    return f"test:{uuid4()}"


class TestEveryCache:
    async def test_absent_is_none(self, cache: CacheServiceInterface, key: str) -> None:
        assert await cache.get(key) is None

    @pytest.mark.parametrize("value", [1, 0, "", "text ü\x00", [1, {"a": None}], {"deep": [True]}, 1.5, False])
    async def test_gives_back_what_was_set(self, cache: CacheServiceInterface, key: str, value: object) -> None:
        await cache.set(key, value)
        assert await cache.get(key) == value

    async def test_models_come_back_as_json(self, cache: CacheServiceInterface, key: str) -> None:
        await cache.set(key, Seat(row="A", taken_at=datetime(2026, 1, 2, tzinfo=UTC)))
        assert await cache.get(key) == {"row": "A", "taken_at": "2026-01-02T00:00:00Z"}

    async def test_what_cannot_be_json_is_an_error_not_a_miss(self, cache: CacheServiceInterface, key: str) -> None:
        with pytest.raises(ValueError, match="serialize"):
            await cache.set(key, object())

    async def test_changing_what_was_got_changes_nothing(self, cache: CacheServiceInterface, key: str) -> None:
        value = {"list": [1]}
        await cache.set(key, value)
        value["list"].append(2)
        got = await cache.get(key)
        assert got is not None
        got["list"].append(3)
        assert await cache.get(key) == {"list": [1]}

    async def test_ends_after_its_ttl(self, cache: CacheServiceInterface, key: str) -> None:
        await cache.set(key, 1, ttl=0.05)
        assert await cache.get(key) == 1
        await asyncio.sleep(0.08)
        assert await cache.get(key) is None

    async def test_a_ttl_of_nothing_keeps_nothing(self, cache: CacheServiceInterface, key: str) -> None:
        await cache.set(key, 1)
        await cache.set(key, 2, ttl=0)
        assert await cache.get(key) is None

    async def test_delete(self, cache: CacheServiceInterface, key: str) -> None:
        await cache.set(key, 1)
        await cache.set(f"{key}:b", 2)
        await cache.delete(key, f"{key}:b", f"{key}:never")
        await cache.delete()
        assert await cache.get(key) is None
        assert await cache.get(f"{key}:b") is None


class TestMemory:
    async def test_is_bounded_and_the_least_recently_used_gives_way(self) -> None:
        cache = MemoryCacheService(max_items=2)
        await cache.set("a", 1)
        await cache.set("b", 2)
        await cache.get("a")
        await cache.set("c", 3)
        assert [await cache.get(key) for key in "abc"] == [1, None, 3]


class TestRedis:
    @pytest.fixture
    async def away(self) -> AsyncIterator[RedisCacheService]:
        """A cache whose Redis does not answer."""
        redis = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0))
        yield RedisCacheService(redis, "test:")
        await redis.aclose()

    async def test_away_is_a_miss_logged_once(self, away: RedisCacheService, capfd: pytest.CaptureFixture[str]) -> None:
        await away.set("a", 1)
        assert await away.get("a") is None
        await away.delete("a")
        assert capfd.readouterr().out.count("going on without a cache") == 1

    async def test_back_again_it_works_and_a_second_absence_is_logged_again(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        redis = FlakyRedis()
        cache = RedisCacheService(redis, "test:")
        for away in (True, True, False, True):
            redis.away = away
            assert await cache.get("a") == (None if away else 1)
        assert capfd.readouterr().out.count("going on without a cache") == 2

    async def test_a_poisoned_value_is_a_miss(self, capfd: pytest.CaptureFixture[str]) -> None:
        redis = FlakyRedis(b"\xff{not json")
        assert await RedisCacheService(redis, "test:").get("a") is None
        assert "cannot be read" in capfd.readouterr().out

    async def test_commands_carry_the_prefix(self) -> None:
        redis = FlakyRedis()
        cache = RedisCacheService(redis, "test:")
        await cache.set("a", 1, ttl=1.5)
        await cache.delete("a", "b")
        assert redis.commands == [("SET", "test:a", b"1", "PX", 1500), ("DEL", "test:a", "test:b")]
