"""Logging out, and the list of one's own sessions."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tests.factories.user import UserFactory
from tests.utils import PASSWORD, freeze, login_user

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


class TestReauthentication:
    """OWASP ASVS 5.0, 7.5.2: a stolen access token must not lock its owner out."""

    async def ids(self, client: httpx.AsyncClient, tokens: dict[str, Any]) -> tuple[int, int]:
        """The ids of the session itself and of another one."""
        found = {item["is_current"]: item["id"] for item in await listed(client, tokens)}
        return found[True], found[False]

    async def test_a_recent_login_is_enough(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        mine, _ = await login_user(client, user), await login_user(client, user)
        _, other = await self.ids(client, mine)

        with freeze(timedelta(minutes=14)):
            assert (await client.delete(f"{URL}/{other}", headers=bearer(mine))).status_code == 204
            assert (await client.post("/api/v1/auth/logout-all", headers=bearer(mine))).status_code == 204

    async def test_an_older_one_needs_the_password(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        mine, _ = await login_user(client, user), await login_user(client, user)
        _, other = await self.ids(client, mine)

        with freeze(timedelta(minutes=16)):
            fresh = (
                await client.post("/api/v1/auth/refresh-token", json={"refresh_token": mine["refresh_token"]})
            ).json()
            paths = [("DELETE", f"{URL}/{other}"), ("DELETE", f"{URL}/{2**60}"), ("POST", "/api/v1/auth/logout-all")]
            for method, path in paths:
                empty: list[dict[str, Any]] = [{}, {"json": {}}]
                for sent in empty:
                    answer = await client.request(method, path, headers=bearer(fresh), **sent)
                    assert (answer.status_code, answer.json()["code"]) == (403, "reauthentication_required"), path
                wrong = await client.request(method, path, headers=bearer(fresh), json={"current_password": "wrong"})
                assert (wrong.status_code, wrong.json()["code"]) == (422, "wrong_password")
                null = await client.request(method, path, headers=bearer(fresh), json={"current_password": None})
                assert null.status_code == 422
            assert len(await listed(client, fresh)) == 2

            proof = {"current_password": PASSWORD}
            for method, path in paths:
                status = 404 if path.endswith(str(2**60)) else 204
                answer = await client.request(method, path, headers=bearer(fresh), json=proof)
                assert answer.status_code == status, answer.text
            assert (await client.get(URL, headers=bearer(fresh))).status_code == 401

    async def test_ones_own_session_needs_nothing(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        for end in ("DELETE", "POST"):
            tokens, _ = await login_user(client, user), await login_user(client, user)
            own, _ = await self.ids(client, tokens)
            with freeze(timedelta(minutes=16)):
                answer = await client.post(
                    "/api/v1/auth/refresh-token", json={"refresh_token": tokens["refresh_token"]}
                )
                path = f"{URL}/{own}" if end == "DELETE" else "/api/v1/auth/logout"
                assert (await client.request(end, path, headers=bearer(answer.json()))).status_code == 204
            await client.post("/api/v1/auth/logout-all")

    async def test_guesses_of_the_password_are_limited(
        self, db: AsyncSession, client: httpx.AsyncClient, limit: Callable[[], None]
    ) -> None:
        tokens = await login_user(client, await UserFactory.create(id=987654))  # no other test's guesses count
        limit()
        body = {"current_password": "wrong"}

        statuses = [
            (await client.post("/api/v1/auth/logout-all", headers=bearer(tokens), json=body)).status_code
            for _ in range(11)
        ]

        assert statuses == [422] * 10 + [429]
