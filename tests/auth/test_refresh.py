"""Refresh tokens: rotation, the grace of ten seconds, reuse."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import AuthSession, RefreshToken, UserStatus
from app.auth.security.tokens import token_hash
from app.core.db import Database, utcnow
from tests.factories.user import UserFactory
from tests.utils import freeze, login_user

URL = "/api/v1/auth/refresh-token"
JSON = {"Content-Type": "application/json"}


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post(URL, json={"refresh_token": token})


async def is_alive(client: httpx.AsyncClient, access_token: str) -> bool:
    answer = await client.get("/api/v1/profile", headers={"Authorization": f"Bearer {access_token}"})
    return answer.status_code == 200


async def logged_in(client: httpx.AsyncClient) -> dict[str, Any]:
    return await login_user(client, await UserFactory.create())


class TestRotation:
    async def test_each_token_is_followed_by_another(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        tokens = await logged_in(client)
        seen = {tokens["refresh_token"]}

        for _ in range(3):
            answer = await refresh(client, tokens["refresh_token"])
            assert answer.status_code == 200
            assert answer.headers["Cache-Control"] == "no-store"
            tokens = answer.json()
            assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
            assert await is_alive(client, tokens["access_token"])
            seen.add(tokens["refresh_token"])

        assert len(seen) == 4

    async def test_the_session_stays_the_same_one(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        tokens = await logged_in(client)

        with freeze(timedelta(minutes=5)):
            await refresh(client, tokens["refresh_token"])

        session = (await db.scalars(select(AuthSession))).one()
        assert session.last_used_at > session.created_at + timedelta(minutes=4)
        assert session.expires_at < session.created_at + timedelta(days=30, seconds=5)


class TestGrace:
    async def test_the_same_successor_again_until_it_is_used(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        token = (await logged_in(client))["refresh_token"]
        first = (await refresh(client, token)).json()

        with freeze(timedelta(seconds=9)):
            again = await refresh(client, token)

        assert again.status_code == 200
        assert again.json()["refresh_token"] == first["refresh_token"]
        assert await is_alive(client, again.json()["access_token"])

    async def test_once_the_successor_was_used_a_replay_ends_the_session(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        token = (await logged_in(client))["refresh_token"]
        first = (await refresh(client, token)).json()
        second = (await refresh(client, first["refresh_token"])).json()

        replay = await refresh(client, token)

        assert replay.status_code == 401
        assert not await is_alive(client, second["access_token"])
        assert (await refresh(client, second["refresh_token"])).status_code == 401

    async def test_after_ten_seconds_a_replay_ends_the_session(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        token = (await logged_in(client))["refresh_token"]
        first = (await refresh(client, token)).json()

        with freeze(timedelta(seconds=11)):
            replay = await refresh(client, token)

        assert replay.status_code == 401
        assert replay.json()["error"] == "invalid_grant"
        assert not await is_alive(client, first["access_token"])
        assert (await refresh(client, first["refresh_token"])).status_code == 401
        session = (await db.scalars(select(AuthSession))).one()
        assert session.revoke_reason == "token_reused"

    async def test_other_sessions_of_the_user_go_on(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        other, stolen = await login_user(client, user), await login_user(client, user)
        await refresh(client, stolen["refresh_token"])

        with freeze(timedelta(seconds=11)):
            await refresh(client, stolen["refresh_token"])

        assert await is_alive(client, other["access_token"])
        assert (await refresh(client, other["refresh_token"])).status_code == 200


class TestEnd:
    async def test_the_lifetime_is_absolute(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        token = (await logged_in(client))["refresh_token"]
        for days in (13, 26):
            with freeze(timedelta(days=days)):
                token = (await refresh(client, token)).json()["refresh_token"]
        with freeze(timedelta(days=29, hours=23, minutes=55)):
            late = await refresh(client, token)
            assert late.status_code == 200
            assert late.json()["expires_in"] <= 5 * 60

        with freeze(timedelta(days=30, seconds=1)):
            assert (await refresh(client, late.json()["refresh_token"])).status_code == 401

    @pytest.mark.parametrize("path", ["/api/v1/auth/logout", "/api/v1/auth/logout-all"])
    async def test_not_after_logout(self, db: AsyncSession, client: httpx.AsyncClient, path: str) -> None:
        tokens = await logged_in(client)
        assert (await client.post(path)).status_code == 204

        assert (await refresh(client, tokens["refresh_token"])).status_code == 401

    async def test_not_for_a_disabled_user(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        tokens = await login_user(client, user)
        user.status_id = UserStatus.DISABLED
        await db.commit()

        assert (await refresh(client, tokens["refresh_token"])).status_code == 401


class TestInput:
    @pytest.mark.parametrize("token", ["x", "A" * 43, "a b", "ä", "😀", "a\nb"])
    async def test_unknown_tokens_are_refused_alike(
        self, db: AsyncSession, client: httpx.AsyncClient, token: str
    ) -> None:
        answer = await refresh(client, token)

        assert answer.status_code == 401
        assert answer.json()["error"] == "invalid_grant"
        assert answer.headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize(
        "body",
        [{}, {"refresh_token": ""}, {"refresh_token": None}, {"refresh_token": 1}, {"refresh_token": "x" * 4097}],
    )
    async def test_what_cannot_be_a_token_is_a_422(
        self, db: AsyncSession, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> None:
        assert (await client.post(URL, json=body)).status_code == 422


class TestSlowService:
    @pytest.mark.parametrize("used", [False, True], ids=["the successor waits", "the successor was used meanwhile"])
    async def test_what_arrived_in_time_is_in_time(
        self, committed: Database, client: httpx.AsyncClient, used: bool
    ) -> None:
        token = (await logged_in(client))["refresh_token"]
        arrived = asyncio.Event()
        scopes = [committed.session_scope(read_only=True) for _ in range(2)]
        async with (
            scopes[0] as one,
            scopes[1] as two,
        ):  # a connection that is opened now would wait by the stopped clock
            await one.execute(select(1))
            await two.execute(select(1))

        async def body() -> AsyncIterator[bytes]:
            yield json.dumps({"refresh_token": token}).encode()
            arrived.set()

        with freeze(timedelta()) as clock:
            first = (await refresh(client, token)).json()
            clock.tick(timedelta(seconds=9))
            async with committed.session_scope() as db:  # what the service waits for
                await db.execute(select(RefreshToken).with_for_update())
                late = asyncio.create_task(client.post(URL, content=body(), headers=JSON))
                await arrived.wait()
                clock.tick(timedelta(seconds=4))
                if used:
                    successor = RefreshToken.token_hash == token_hash(first["refresh_token"])
                    await db.execute(update(RefreshToken).where(successor).values(rotated_at=utcnow()))
            answer = await late

        assert answer.status_code == 200, answer.text
        assert answer.json()["refresh_token"] == first["refresh_token"]
        assert await is_alive(client, answer.json()["access_token"])

    async def test_a_slow_client_gains_no_time(self, committed: Database, client: httpx.AsyncClient) -> None:
        token = (await logged_in(client))["refresh_token"]

        with freeze(timedelta()) as clock:
            await refresh(client, token)

            async def body() -> AsyncIterator[bytes]:
                yield b'{"refresh_token":'
                clock.tick(timedelta(seconds=11))
                yield json.dumps(token).encode() + b"}"

            answer = await client.post(URL, content=body(), headers=JSON)

        assert answer.status_code == 401


class TestHundredAtOnce:
    async def test_one_successor_and_it_works(self, committed: Database, client: httpx.AsyncClient) -> None:
        token = (await logged_in(client))["refresh_token"]

        answers = await asyncio.gather(*(refresh(client, token) for _ in range(100)))

        assert [answer.status_code for answer in answers] == [200] * 100
        successors = {answer.json()["refresh_token"] for answer in answers}
        assert len(successors) == 1
        assert (await refresh(client, successors.pop())).status_code == 200

    async def test_a_replay_after_the_grace_ends_the_family_for_good(
        self, committed: Database, client: httpx.AsyncClient
    ) -> None:
        token = (await logged_in(client))["refresh_token"]
        first = (await refresh(client, token)).json()

        with freeze(timedelta(seconds=11)):
            answers = await asyncio.gather(*(refresh(client, token) for _ in range(20)))

        assert [answer.status_code for answer in answers] == [401] * 20
        # Committed: a database opened anew, as after a restart, knows it too.
        reopened = Database.connect(committed.engine.url)
        async with reopened.session_scope(read_only=True) as db:
            assert (await db.scalars(select(AuthSession))).one().revoked_at is not None
        await reopened.close()
        assert not await is_alive(client, first["access_token"])
        assert (await refresh(client, first["refresh_token"])).status_code == 401
