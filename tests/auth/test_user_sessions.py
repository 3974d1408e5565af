"""Administrators list and end the sessions of an account."""

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import LoggedOutEverywhere
from app.auth.models import User
from tests.factories.user import UserFactory
from tests.utils import PublishedEvents, login_user

API = "/api/v1"


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def url(user: User | int) -> str:
    return f"{API}/users/{user if isinstance(user, int) else user.id}/sessions"


@pytest.fixture
async def owner(db: AsyncSession) -> User:
    return await UserFactory.create()


class TestList:
    async def test_the_live_sessions_of_the_account(
        self, db: AsyncSession, client: httpx.AsyncClient, owner: User
    ) -> None:
        ended = await login_user(client, owner)
        await client.post(f"{API}/auth/logout", headers=bearer(ended))
        await login_user(client, owner)
        admin = await UserFactory.create(permissions=["users:read"])
        await login_user(client, admin)

        (session,) = (await client.get(url(owner))).json()["data"]
        (own,) = (await client.get(url(admin))).json()["data"]

        assert (session["address"], session["is_current"], own["is_current"]) == ("192.0.2.1", False, True)

    async def test_not_without_the_permission(self, db: AsyncSession, client: httpx.AsyncClient, owner: User) -> None:
        await login_user(client, await UserFactory.create(permissions=["users:write"]))
        assert (await client.get(url(owner))).status_code == 403

    async def test_an_unknown_account_is_not_found(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await login_user(client, await UserFactory.create(roles=["admin"]))
        for method in ("GET", "DELETE"):
            answer = await client.request(method, url(2**40))
            assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")


class TestEnd:
    async def test_every_one_ends_and_links_are_void(
        self, db: AsyncSession, client: httpx.AsyncClient, owner: User, published_events: PublishedEvents
    ) -> None:
        sessions = [await login_user(client, owner) for _ in range(2)]
        admin = await UserFactory.create(permissions=["users:write"])
        tokens = await login_user(client, admin)

        answer = await client.delete(url(owner))

        assert (answer.status_code, answer.content) == (204, b"")
        for ended in sessions:
            assert (await client.get(f"{API}/profile", headers=bearer(ended))).status_code == 401
            body = {"refresh_token": ended["refresh_token"]}
            assert (await client.post(f"{API}/auth/refresh-token", json=body)).status_code == 401
        assert (await client.get(f"{API}/profile", headers=bearer(tokens))).status_code == 200
        assert await db.scalar(select(User.security_stamp).where(User.id == owner.id)) == 1
        (event,) = published_events.of(LoggedOutEverywhere)
        assert (event.user_id, event.actor_id) == (owner.id, admin.id)

    async def test_not_without_the_permission(self, db: AsyncSession, client: httpx.AsyncClient, owner: User) -> None:
        await login_user(client, await UserFactory.create(permissions=["users:read"]))
        assert (await client.delete(url(owner))).status_code == 403

    async def test_not_those_of_an_account_above_ones_own(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        above = await UserFactory.create(roles=["admin"])
        theirs = await login_user(client, above)
        await login_user(client, await UserFactory.create(permissions=["users:read", "users:write"]))

        answer = await client.delete(url(above))

        assert (answer.status_code, answer.json()["code"]) == (403, "action_not_allowed")
        assert (await client.get(f"{API}/profile", headers=bearer(theirs))).status_code == 200
