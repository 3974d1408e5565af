"""How long sessions last, and how many an account has."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import SessionRevoked
from app.auth.config import AuthConfig
from app.auth.models import AuthSession, User
from app.core.db import Database
from tests.factories.user import UserFactory
from tests.utils import PublishedEvents, freeze, login_user

API = "/api/v1"


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post(f"{API}/auth/refresh-token", json={"refresh_token": token})


async def status_of(client: httpx.AsyncClient, tokens: dict[str, str]) -> int:
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    return (await client.get(f"{API}/profile", headers=headers)).status_code


async def listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(f"{API}/auth/sessions")).json()["data"]
    return found


class TestIdle:
    async def test_an_unused_session_ends(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        used, unused = await login_user(client, user), await login_user(client, user)
        with freeze(timedelta(days=13)):
            used = (await refresh(client, used["refresh_token"])).json()

        with freeze(timedelta(days=14, minutes=1)):
            assert (await refresh(client, unused["refresh_token"])).status_code == 401
            assert (await refresh(client, used["refresh_token"])).status_code == 200

    async def test_it_is_listed_no_more(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        await login_user(client, user)

        with freeze(timedelta(days=14, minutes=1)):
            await login_user(client, user)
            assert [item["is_current"] for item in await listed(client)] == [True]

    async def test_a_shorter_setting_counts_at_once(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Callable[..., AuthConfig]
    ) -> None:
        tokens = await login_user(client, await UserFactory.create())
        configure(SESSION_IDLE_DAYS=1)

        with freeze(timedelta(days=1, minutes=1)):
            assert (await refresh(client, tokens["refresh_token"])).status_code == 401


class TestCap:
    @pytest.fixture(autouse=True)
    def three(self, configure: Callable[..., AuthConfig]) -> None:
        configure(MAX_SESSIONS_PER_USER=3)

    async def test_a_login_ends_the_one_unused_longest(
        self, db: AsyncSession, client: httpx.AsyncClient, published_events: PublishedEvents
    ) -> None:
        user, stranger = await UserFactory.create(), await UserFactory.create()
        theirs = await login_user(client, stranger)
        one, two, three = [await login_user(client, user) for _ in range(3)]
        with freeze(timedelta(minutes=1)):
            one = (await refresh(client, one["refresh_token"])).json()

            four = await login_user(client, user)

            assert await status_of(client, two) == 401
            assert (await refresh(client, two["refresh_token"])).status_code == 401
            for tokens in (theirs, one, three, four):
                assert await status_of(client, tokens) == 200
        (event,) = published_events.of(SessionRevoked)
        assert (event.user_id, event.actor_id, event.reason) == (user.id, user.id, "too_many")
        ended = await db.get_one(AuthSession, event.session_id)
        assert ended.revoke_reason == "too_many"

    async def test_logins_at_once_leave_no_more(self, committed: Database, client: httpx.AsyncClient) -> None:
        user: User = await UserFactory.create()

        await asyncio.gather(*(login_user(client, user) for _ in range(8)))

        async with committed.session_scope(read_only=True) as db:
            live = select(AuthSession.id).where(AuthSession.revoked_at.is_(None))
            assert len((await db.scalars(live)).all()) == 3
