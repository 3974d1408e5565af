"""Logging out, and the list of one's own sessions."""

from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tests.factories.user import UserFactory
from tests.utils import login_user

URL = "/api/v1/auth/sessions"


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def listed(client: httpx.AsyncClient, tokens: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.get(URL, headers=bearer(tokens))
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


class TestList:
    async def test_own_live_sessions_only(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        first, second = await login_user(client, user), await login_user(client, user)
        await login_user(client, await UserFactory.create())

        found = await listed(client, first)

        assert [item["is_current"] for item in found] == [False, True]
        assert set(found[0]) == {
            "id",
            "device",
            "address",
            "created_at",
            "last_used_at",
            "expires_at",
            "is_current",
        }
        await client.post("/api/v1/auth/logout", headers=bearer(second))
        assert len(await listed(client, first)) == 1


class TestEnd:
    async def test_it_ends_at_once(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        mine, other = await login_user(client, user), await login_user(client, user)
        other_id = next(item["id"] for item in await listed(client, other) if item["is_current"])

        answer = await client.delete(f"{URL}/{other_id}", headers=bearer(mine))

        assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get(URL, headers=bearer(other))).status_code == 401
        assert (await client.delete(f"{URL}/{other_id}", headers=bearer(mine))).status_code == 404

    async def test_anothers_session_is_not_found(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        theirs = await login_user(client, await UserFactory.create())
        (session,) = await listed(client, theirs)
        mine = await login_user(client, await UserFactory.create())

        assert (await client.delete(f"{URL}/{session['id']}", headers=bearer(mine))).status_code == 404
        assert len(await listed(client, theirs)) == 1

    @pytest.mark.parametrize("path", ["0", "-1", "x", "1.5", str(2**63), "9" * 400, "%00"])
    async def test_what_is_no_id_is_no_500(self, db: AsyncSession, client: httpx.AsyncClient, path: str) -> None:
        mine = await login_user(client, await UserFactory.create())

        assert (await client.delete(f"{URL}/{path}", headers=bearer(mine))).status_code in (404, 422)

    async def test_the_greatest_id_is_not_found(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        mine = await login_user(client, await UserFactory.create())

        assert (await client.delete(f"{URL}/{2**63 - 1}", headers=bearer(mine))).status_code == 404


class TestLogout:
    async def test_it_ends_this_session(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        mine, other = await login_user(client, user), await login_user(client, user)

        answer = await client.post("/api/v1/auth/logout", headers=bearer(mine))

        assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get(URL, headers=bearer(mine))).status_code == 401
        assert (await client.get(URL, headers=bearer(other))).status_code == 200

    async def test_everywhere_ends_all(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        mine, other = await login_user(client, user), await login_user(client, user)
        stranger = await login_user(client, await UserFactory.create())

        assert (await client.post("/api/v1/auth/logout-all", headers=bearer(mine))).status_code == 204

        assert (await client.get(URL, headers=bearer(mine))).status_code == 401
        assert (await client.get(URL, headers=bearer(other))).status_code == 401
        assert (await client.get(URL, headers=bearer(stranger))).status_code == 200

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/auth/logout"),
            ("POST", "/auth/logout-all"),
            ("GET", "/auth/sessions"),
            ("DELETE", "/auth/sessions/1"),
            ("GET", "/profile"),
            ("PATCH", "/profile"),
            ("DELETE", "/profile"),
            ("POST", "/profile/password"),
            ("GET", "/users"),
            ("POST", "/users"),
            ("GET", "/users/1"),
            ("PATCH", "/users/1"),
            ("DELETE", "/users/1"),
        ],
    )
    async def test_nobody_is_let_in_without_a_token(
        self, db: AsyncSession, client: httpx.AsyncClient, method: str, path: str
    ) -> None:
        answer = await client.request(method, f"/api/v1{path}", json={})

        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
