"""Events in an export, and after an erasure."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.models import AuditEvent
from tests.auth.traces import ADDRESS, EXPORT, Drain, after, browsing, delete, live, traces
from tests.factories.user import UserFactory
from tests.utils import login_user


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose address and headers are nobody else's."""
    async with browsing(app) as http:
        yield http


class TestExport:
    async def test_what_the_user_did_and_what_was_tried_on_the_account(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        await live(browser, drain)
        events = [row["event"] for row in (await browser.get(EXPORT)).json()["data"]["audit"]]
        assert {event["kind"] for event in events} >= {"user_created", "login_failed", "login_succeeded"}
        assert {event["address"] for event in events} == {ADDRESS}

    async def test_nothing_about_others(
        self, db: AsyncSession, client: httpx.AsyncClient, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        other = await UserFactory.create(username="somebodyelse")
        client.headers["User-Agent"] = "AdminAgent/1.0"
        await login_user(client, await UserFactory.create(is_superuser=True, username="theadmin"))
        assert (await client.patch(f"/api/v1/users/{user_id}", json={"username": "renamed"})).status_code == 200
        await client.patch(f"/api/v1/users/{other.id}", json={"username": "renamedtoo"})
        await drain()

        answer = await browser.get(EXPORT)

        assert "user_updated" in answer.text
        strangers = ("192.0.2.1", "AdminAgent", "theadmin", "somebodyelse", other.email, "renamedtoo")
        assert [name for name in strangers if name in answer.text] == []

    async def test_a_log_longer_than_one_page_is_whole(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        sample = (await db.scalars(select(AuditEvent).where(AuditEvent.actor_id == user_id))).first()
        assert sample is not None
        values = sample.to_dict(exclude={"id", "event_id"}) | {"user_agent": "x" * 200}
        db.add_all([AuditEvent(**values, event_id=uuid4()) for _ in range(3000)])
        await db.commit()

        found = (await browser.get(EXPORT)).json()["data"]

        assert len(found["audit"]) > 3000


class TestErasure:
    async def test_what_happened_is_kept_with_when_and_the_ids_of_users(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        await delete(browser)
        await after(drain, timedelta(days=31))

        kept = (await db.scalars(select(AuditEvent).where(AuditEvent.subject_id == user_id))).all()
        assert {event.kind for event in kept} >= {"user_created", "login_failed", "user_deleted"}
        assert {event.actor_id for event in kept} == {None, user_id}
        for event in kept:
            assert (event.address, event.user_agent, event.request_id, event.conversation_id) == (None,) * 4
            assert event.details == {}

    async def test_what_an_administrator_did_keeps_from_where_and_loses_what(
        self, db: AsyncSession, client: httpx.AsyncClient, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        admin = await UserFactory.create(is_superuser=True)
        await login_user(client, admin)
        await client.patch(f"/api/v1/users/{user_id}", json={"username": "renamed"})
        await client.delete(f"/api/v1/users/{user_id}")
        await after(drain, timedelta(days=31))

        by_admin = (AuditEvent.subject_id == user_id, AuditEvent.actor_id == admin.id)
        kept = (await db.scalars(select(AuditEvent).where(*by_admin))).all()
        assert [(event.address, event.details) for event in kept] == [("192.0.2.1", {})] * 2
        assert await traces(db) == []
