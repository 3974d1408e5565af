"""The recorder of events that tests of every module use."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.events import UserCreated, UserDeleted
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.events.interface import listeners
from tests.core.services.conftest import rolled_back
from tests.utils import PASSWORD, PublishedEvents

Drain = Callable[[], Awaitable[int]]


async def test_what_a_request_published_is_there_with_its_type(
    committed: Database, client: httpx.AsyncClient, published_events: PublishedEvents
) -> None:
    account = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}
    answer = await client.post("/api/v1/auth/register", json=account)
    assert [event.user_id for event in published_events.of(UserCreated)] == [answer.json()["data"]["id"]]
    await client.post("/api/v1/auth/register", json=account)
    assert len(published_events.all()) == 1


async def test_in_the_order_of_the_commits_and_without_what_was_rolled_back(
    kit: Runtime, db: AsyncSession, published_events: PublishedEvents
) -> None:
    async with kit.database.session_scope() as session:
        kit.events.dispatch(UserCreated(user_id=1))
        async with rolled_back(session.begin_nested()):
            kit.events.dispatch(UserCreated(user_id=2))
        async with kit.database.session_scope():
            kit.events.dispatch(UserDeleted(user_id=3))
        assert published_events.all() == [UserDeleted(user_id=3)]
    async with rolled_back(kit.database.session_scope()):
        kit.events.dispatch(UserCreated(user_id=4))
    async with kit.database.session_scope(read_only=True):
        kit.events.dispatch(UserCreated(user_id=5))
    assert published_events.all() == [UserDeleted(user_id=3), UserCreated(user_id=1), UserCreated(user_id=5)]
    assert published_events.of(UserCreated) == [UserCreated(user_id=1), UserCreated(user_id=5)]


async def test_listeners_hear_it_all_the_same(
    kit: Runtime, db: AsyncSession, published_events: PublishedEvents, drain: Drain
) -> None:
    async with kit.database.session_scope():
        kit.events.dispatch(UserCreated(user_id=1))
    assert await drain() == len(listeners.of(UserCreated))


class TestWaitFor:
    async def test_what_is_published_later_is_awaited(
        self, kit: Runtime, committed: Database, published_events: PublishedEvents
    ) -> None:
        async def publish() -> None:
            for number in (1, 2):
                async with kit.database.session_scope():
                    kit.events.dispatch(UserCreated(user_id=number))

        publishing = asyncio.create_task(publish())
        found = await published_events.wait_for(UserCreated, where=lambda event: event.user_id == 2)
        assert found == UserCreated(user_id=2)
        await publishing

    async def test_what_was_published_before_counts(
        self, kit: Runtime, db: AsyncSession, published_events: PublishedEvents
    ) -> None:
        async with kit.database.session_scope():
            kit.events.dispatch(UserCreated(user_id=1))
        assert await published_events.wait_for(UserCreated, timeout=0) == UserCreated(user_id=1)

    async def test_in_vain_it_says_what_was_published_instead(
        self, kit: Runtime, db: AsyncSession, published_events: PublishedEvents
    ) -> None:
        with pytest.raises(AssertionError, match=r"^no fitting UserDeleted within 0\.01 s; published: nothing$"):
            await published_events.wait_for(UserDeleted, timeout=0.01)
        async with kit.database.session_scope():
            kit.events.dispatch(UserCreated(user_id=1))
        with pytest.raises(AssertionError, match=r"published:\n  UserCreated\(user_id=1, .*\)$"):
            await published_events.wait_for(UserDeleted, timeout=0.01)
