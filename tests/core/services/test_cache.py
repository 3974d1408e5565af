"""The cache, in process and in Redis."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from pydantic import BaseModel

from app.core.runtime import Runtime
from app.core.services.cache import CacheServiceInterface


class Seat(BaseModel):
    """A value."""

    row: str
    taken_at: datetime


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
