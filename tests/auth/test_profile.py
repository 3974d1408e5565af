"""Routes of one's own account."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import get_auth_config
from app.auth.models import AuthSession, User
from app.core.db.jobs import Job
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, login_user

URL = "/api/v1/profile"
Drain = Callable[[], Awaitable[int]]


class TestRead:
    async def test_own_account(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        await login_user(client, user)

        answer = await client.get(URL)

        assert answer.status_code == 200
        data = answer.json()["data"]
        assert list(data) == ["id", "email", "username", "status_id", "is_verified", "created_at", "updated_at"]
        assert data["id"] == user.id


class TestUpdate:
    async def test_name(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        await login_user(client, user)

        answer = await client.patch(URL, json={"username": "New.Name"})

        assert answer.status_code == 200
        assert answer.json()["data"]["username"] == "New.Name"
        assert await db.scalar(select(User.username_key).where(User.id == user.id)) == "new.name"
        assert (await client.get(URL)).json() == answer.json()

    async def test_nothing_changes_nothing(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await login_user(client, await UserFactory.create())
        before = (await client.get(URL)).json()

        answer = await client.patch(URL, json={})

        assert (answer.status_code, answer.json()) == (200, before)

    @pytest.mark.parametrize("username", ["Ann", "aNN"])
    async def test_a_taken_name_is_a_conflict(self, db: AsyncSession, client: httpx.AsyncClient, username: str) -> None:
        await UserFactory.create(username="Ann")
        await login_user(client, await UserFactory.create())

        answer = await client.patch(URL, json={"username": username})

        assert (answer.status_code, answer.json()["code"]) == (409, "username_taken")

    async def test_the_case_of_ones_own_name_can_change(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await login_user(client, await UserFactory.create(username="ann"))

        assert (await client.patch(URL, json={"username": "Ann"})).json()["data"]["username"] == "Ann"

    @pytest.mark.parametrize(
        "body",
        [
            {"username": None},
            {"email": None},
            {"current_password": None},
            {"username": "x"},
            {"username": 5},
            {"is_superuser": True},
            {"is_verified": True},
            {"status_id": 1},
            {"password": "another good one"},
            {"email": "new@example.com"},
            {"email": "new@example.com", "current_password": "wrong password"},
            {"email": "new@example.com", "current_password": "x" * 257},
            [],
        ],
        ids=str,
    )
    async def test_what_is_refused(self, db: AsyncSession, client: httpx.AsyncClient, body: Any) -> None:
        await login_user(client, await UserFactory.create())
        before = (await client.get(URL)).json()

        answer = await client.patch(URL, json=body)

        assert answer.status_code == 422
        assert "wrong password" not in answer.text
        assert (await client.get(URL)).json() == before


class TestPassword:
    async def test_a_generated_one_must_be_changed_first(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create(is_superuser=True, password_change_required=True)
        await login_user(client, user)

        for method, path in (
            ("GET", "/users"),
            ("GET", f"/users/{user.id}"),
            ("PATCH", "/profile"),
            ("DELETE", "/profile"),
            ("GET", "/auth/sessions"),
        ):
            refused = await client.request(method, f"/api/v1{path}", json={} if method == "PATCH" else None)
            assert (refused.status_code, refused.json()["code"]) == (403, "password_change_required"), path
        assert (await client.get(URL)).status_code == 200
        assert (await client.get("/api/v1/users/me")).status_code == 200
        change = {"current_password": PASSWORD, "new_password": "another good one"}
        same = await client.post(f"{URL}/password", json=change | {"new_password": PASSWORD})
        assert same.json()["errors"][0]["type"] == "password_unchanged"

        assert (await client.post(f"{URL}/password", json=change)).status_code == 204
        assert (await client.get("/api/v1/users")).status_code == 200

    @pytest.mark.parametrize("route", ["logout", "logout-all"])
    async def test_who_must_change_it_may_leave(self, db: AsyncSession, client: httpx.AsyncClient, route: str) -> None:
        await login_user(client, await UserFactory.create(password_change_required=True))

        assert (await client.post(f"/api/v1/auth/{route}")).status_code == 204
        assert (await client.get(URL)).status_code == 401

    async def test_one_that_the_policy_would_refuse_still_logs_in(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        stored = await get_auth_config().password_hasher.hash("password")
        user = await UserFactory.create(password_hash=stored)

        await login_user(client, user, "password")
        assert (await client.patch(URL, json={"username": "other"})).status_code == 200

    async def test_it_changes_and_other_sessions_end(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        other = await login_user(client, user)
        await login_user(client, user)

        answer = await client.post(
            f"{URL}/password", json={"current_password": PASSWORD, "new_password": "another good one"}
        )

        assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get(URL)).status_code == 200
        headers = {"Authorization": f"Bearer {other['access_token']}"}
        assert (await client.get(URL, headers=headers)).status_code == 401
        await login_user(client, user, "another good one")

    async def test_links_mailed_before_are_useless(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        await login_user(client, user)
        await client.post("/api/v1/auth/restore-password", json={"email": user.email})
        await drain()
        await client.post(f"{URL}/password", json={"current_password": PASSWORD, "new_password": "another good one"})

        answer = await client.post(
            "/api/v1/auth/reset-password",
            json={"token": captured_mail.token_for(user.email), "new_password": "a thief's one"},
        )

        assert answer.status_code == 422

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"new_password": "another good one"},
            {"current_password": "wrong password", "new_password": "another good one"},
            {"current_password": PASSWORD, "new_password": "short"},
            {"current_password": PASSWORD, "new_password": PASSWORD},
            {"current_password": PASSWORD, "new_password": None},
        ],
        ids=str,
    )
    async def test_what_is_refused(self, db: AsyncSession, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        user = await UserFactory.create()
        await login_user(client, user)

        assert (await client.post(f"{URL}/password", json=body)).status_code == 422
        await login_user(client, user)

    async def test_guessing_is_limited(
        self, db: AsyncSession, client: httpx.AsyncClient, limit: Callable[[], None]
    ) -> None:
        await login_user(client, await UserFactory.create())
        limit()
        body = {"current_password": "wrong password", "new_password": "another good one"}

        codes = [(await client.post(f"{URL}/password", json=body)).status_code for _ in range(11)]

        assert codes == [422] * 10 + [429]


class TestDelete:
    async def test_the_account_ends_with_its_sessions(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        tokens = await login_user(client, user)

        answer = await client.request("DELETE", URL, json={"current_password": PASSWORD})

        assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get(URL)).status_code == 401
        refreshed = await client.post("/api/v1/auth/refresh-token", json={"refresh_token": tokens["refresh_token"]})
        assert refreshed.status_code == 401
        row = await db.scalar(select(User.deleted_at).where(User.id == user.id))
        assert row is not None, "marked, not removed"
        reasons = (await db.scalars(select(AuthSession.revoke_reason))).all()
        assert list(reasons) == ["account_deleted"]

    @pytest.mark.parametrize("body", [{}, {"current_password": "wrong password"}, {"current_password": None}])
    async def test_it_asks_for_the_password(
        self, db: AsyncSession, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> None:
        await login_user(client, await UserFactory.create())

        assert (await client.request("DELETE", URL, json=body)).status_code == 422
        assert (await client.get(URL)).status_code == 200

    async def test_the_last_superuser_stays(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await login_user(client, await UserFactory.create(is_superuser=True))
        before = (await db.scalars(select(Job))).all()

        answer = await client.request("DELETE", URL, json={"current_password": PASSWORD})

        assert (answer.status_code, answer.json()["code"]) == (409, "last_superuser")
        assert (await client.get(URL)).status_code == 200
        assert (await db.scalars(select(Job))).all() == before
