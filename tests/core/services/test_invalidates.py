"""`invalidates`: events that forget."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.deps import invalidates
from app.core.exceptions import ConfigError
from app.core.runtime import Runtime
from app.core.services.cache import CacheService, RedisStore
from app.core.services.events import BaseEvent
from tests.core.services.conftest import rolled_back
from tests.processes import free_port
from tests.utils import key_prefix


class ShelfChanged(BaseEvent):
    """Names of the cache come from it."""

    name: str


class HouseClosed(BaseEvent):
    """Names are the same each time."""


RUN = str(uuid4())

invalidates(
    ShelfChanged,
    tags=lambda event: [f"role:{event.name}"],
    keys=lambda event: [f"roles:{event.name}"],
    patterns=lambda event: [f"{event.name}:*"],
)
invalidates(HouseClosed, tags=[RUN], durable=False)

Jobs = Callable[[], Awaitable[Sequence[Job]]]
Drain = Callable[[], Awaitable[int]]


@pytest.fixture
async def name(kit: Runtime) -> str:
    """A role, of which the cache holds three things."""
    name = str(uuid4())
    await kit.cache.set("tagged " + name, 1, tags=[f"role:{name}"])
    await kit.cache.set(f"roles:{name}", 1)
    await kit.cache.set(f"{name}:1", 1)
    return name


async def held(kit: Runtime, name: str) -> int:
    return [await kit.cache.get(key) for key in ("tagged " + name, f"roles:{name}", f"{name}:1")].count(1)


async def test_forgets_once_the_event_is_committed(kit: Runtime, committed: Database, drain: Drain, name: str) -> None:
    async with committed.session_scope():
        kit.events.dispatch(ShelfChanged(name=name))
        assert await held(kit, name) == 3
    await drain()
    assert await held(kit, name) == 0


async def test_what_was_rolled_back_forgets_nothing(kit: Runtime, committed: Database, drain: Drain, name: str) -> None:
    async with rolled_back(committed.session_scope()):
        kit.events.dispatch(ShelfChanged(name=name))
    await drain()
    assert await held(kit, name) == 3


async def test_at_once_and_at_most_once_where_it_need_not_be_durable(kit: Runtime, committed: Database) -> None:
    await kit.cache.set(RUN, 1, tags=[RUN])
    kit.events.dispatch(HouseClosed())
    async with asyncio.timeout(60):
        while await kit.cache.get(RUN):  # noqa: ASYNC110  what is waited for knows nothing of tests
            await asyncio.sleep(0.005)


async def test_is_tried_again_while_the_cache_cannot_be_reached(
    kit: Runtime, committed: Database, drain: Drain, jobs: Jobs, due: Callable[[], Awaitable[None]], name: str
) -> None:
    store = RedisStore(Redis(port=free_port(), socket_connect_timeout=0.2), key_prefix("test:"))
    reached, kit.cache = kit.cache, CacheService(store)
    try:
        async with committed.session_scope():
            kit.events.dispatch(ShelfChanged(name=name))
        await drain()
        (job,) = await jobs()
        assert job.status == JobStatus.FAILED
        assert "cannot be reached" in str(job.last_error)
    finally:
        kit.cache = reached
        await store.close()
    assert await held(kit, name) == 3
    await due()
    await drain()
    assert await held(kit, name) == 0


async def test_once_an_event(kit: Runtime) -> None:
    with pytest.raises(ConfigError, match=r"two listeners are called .*:invalidates.HouseClosed"):
        invalidates(HouseClosed, tags=["a"])
