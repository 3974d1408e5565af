"""Logins narrowed to a scope (RFC 6749 section 3.3), and what access tokens say of scope and roles."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from jose import jws
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import LoginFailed
from app.auth.models import AuthSession, Role, User, UserRole
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, PublishedEvents

API = "/api/v1"

Login = Callable[..., Any]


async def by_form(client: httpx.AsyncClient, user: User, **fields: str) -> httpx.Response:
    return await client.post(f"{API}/auth/login", data={"username": user.email, "password": PASSWORD, **fields})


async def by_json(client: httpx.AsyncClient, user: User, **fields: str) -> httpx.Response:
    return await client.post(f"{API}/auth/login", json={"username": user.email, "password": PASSWORD, **fields})


def claims_of(answer: httpx.Response) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(jws.get_unverified_claims(answer.json()["access_token"]))
    return claims


async def status_of(client: httpx.AsyncClient, answer: httpx.Response, method: str, path: str, **body: Any) -> int:
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    return (await client.request(method, f"{API}{path}", headers=headers, json=body or None)).status_code


@pytest.fixture
async def reader(db: AsyncSession) -> User:
    """An account that may read accounts and events."""
    return await UserFactory.create(permissions=["users:read", "audit:read"])


class TestScope:
    @pytest.mark.parametrize("login", [by_form, by_json])
    @pytest.mark.parametrize(
        ("asked", "granted"),
        [
            ("users:read", "users:read"),
            ("users:read audit:read", "audit:read users:read"),
            ("users:read users:write ghosts:see", "users:read"),
            ("users:read users:read", "users:read"),
        ],
    )
    async def test_it_is_narrowed_to_what_is_held(
        self, db: AsyncSession, client: httpx.AsyncClient, reader: User, login: Login, asked: str, granted: str
    ) -> None:
        answer = await login(client, reader, scope=asked)

        assert (answer.status_code, answer.json()["scope"]) == (200, granted)
        assert claims_of(answer)["scope"] == granted
        assert "roles" not in claims_of(answer)
        assert await status_of(client, answer, "GET", "/users") == (200 if "users:read" in granted else 403)
        assert await status_of(client, answer, "GET", "/audit/events") == (200 if "audit:read" in granted else 403)
        assert await status_of(client, answer, "POST", "/auth/logout-all") == 403
        assert await status_of(client, answer, "POST", "/auth/logout") == 204

    async def test_a_refresh_keeps_it(self, db: AsyncSession, client: httpx.AsyncClient, reader: User) -> None:
        first = await by_form(client, reader, scope="users:read")
        body = {"refresh_token": first.json()["refresh_token"]}

        second = await client.post(f"{API}/auth/refresh-token", json=body)

        assert second.json()["scope"] == claims_of(second)["scope"] == "users:read"
        assert await status_of(client, second, "GET", "/users") == 200
        assert await status_of(client, second, "GET", "/audit/events") == 403

    @pytest.mark.parametrize("login", [by_form, by_json])
    async def test_without_one_a_login_is_whole(
        self, db: AsyncSession, client: httpx.AsyncClient, reader: User, login: Login
    ) -> None:
        for fields in ({}, {"scope": ""}):
            answer = await login(client, reader, **fields)
            assert "scope" not in answer.json()
            assert "scope" not in claims_of(answer)
            assert await status_of(client, answer, "GET", "/audit/events") == 200

    @pytest.mark.parametrize("login", [by_form, by_json])
    @pytest.mark.parametrize(
        "asked",
        [
            *("users:write", "ghosts:see", "*", "USERS:READ", "users:read,audit:read"),
            *(" ", " users:read", "users:read  audit:read", "users:read\taudit:read"),
            *('users:read "', "users:read \\", "users:read ä"),
        ],
    )
    async def test_an_empty_or_malformed_one_opens_nothing(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        reader: User,
        published_events: PublishedEvents,
        login: Login,
        asked: str,
    ) -> None:
        answer = await login(client, reader, scope=asked)

        assert answer.status_code == 422
        assert (answer.json()["code"], answer.json()["error"]) == ("invalid_scope", "invalid_scope")
        assert answer.json()["errors"][0]["loc"] == ["body", "scope"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert await db.scalar(select(func.count()).select_from(AuthSession)) == 0
        (event,) = published_events.of(LoginFailed)
        assert (event.user_id, event.reason) == (reader.id, "invalid_scope")

    async def test_it_tells_nothing_without_the_password(
        self, db: AsyncSession, client: httpx.AsyncClient, reader: User
    ) -> None:
        answers = [
            await client.post(f"{API}/auth/login", data={"username": name, "password": "wrong", "scope": scope})
            for name in (reader.email, "nobody")
            for scope in ("users:read", "users:write", "  ")
        ]
        assert {(answer.status_code, answer.json()["error"]) for answer in answers} == {(401, "invalid_grant")}

    async def test_a_long_one_is_refused(self, db: AsyncSession, client: httpx.AsyncClient, reader: User) -> None:
        assert (await by_json(client, reader, scope="users:read " * 100)).status_code == 422

    async def test_it_never_widens(self, db: AsyncSession, client: httpx.AsyncClient, reader: User) -> None:
        answer = await by_form(client, reader, scope="users:read audit:read")
        await db.execute(delete(UserRole).where(UserRole.user_id == reader.id))
        await db.commit()

        assert await status_of(client, answer, "GET", "/users") == 403

    async def test_it_does_not_change_its_own_account(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        """By a link to another address, whoever has the token would get a login that is narrowed to nothing."""
        writer = await UserFactory.create(permissions=["users:write"])
        answer = await by_form(client, writer, scope="users:write")

        path = f"/users/{writer.id}"
        assert await status_of(client, answer, "PATCH", path, email="thief@example.com") == 403
        assert await status_of(client, answer, "DELETE", path) == 403
        other = await UserFactory.create()
        assert await status_of(client, answer, "PATCH", f"/users/{other.id}", username="renamed") == 200


class TestClaims:
    async def test_roles_are_told_in_order(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        answer = await by_form(client, await UserFactory.create(roles=["admin"]))

        assert claims_of(answer)["roles"] == ["admin", "member"]

    async def test_any_number_of_roles_leaves_a_token_that_is_read(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        roles = [Role(name=f"a{number:031}") for number in range(120)]
        db.add_all(roles)
        await db.flush()
        answer = await by_form(client, await UserFactory.create(roles=[role.name for role in roles]))

        assert await status_of(client, answer, "GET", "/profile") == 200

    async def test_rights_are_those_of_the_moment_and_not_the_tokens(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        admin = await UserFactory.create(roles=["admin"])
        answer = await by_form(client, admin)
        await db.execute(delete(UserRole).where(UserRole.user_id == admin.id))
        await db.execute(update(User).values(is_superuser=False))
        await db.commit()

        assert await status_of(client, answer, "GET", "/users") == 403
        refreshed = await client.post(
            f"{API}/auth/refresh-token", json={"refresh_token": answer.json()["refresh_token"]}
        )
        assert "roles" not in claims_of(refreshed)
