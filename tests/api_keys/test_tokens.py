"""The client credentials grant of RFC 6749: a key is exchanged for a token that is short-lived and ends with it."""

import base64
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys import security
from app.api_keys.models import AccessToken
from app.api_keys.tasks import PurgeExpiredTokens
from app.auth import UserStatus
from app.auth.models import User
from app.core.db.session import current_session, session_scope
from tests.api_keys.conftest import KEYS, TOKEN, Make, Sender
from tests.utils import freeze

ME, USERS = "/api/v1/users/me", "/api/v1/users"


def form(key: dict[str, Any], **fields: str) -> dict[str, str]:
    return {"grant_type": "client_credentials", "client_id": key["prefix"], "client_secret": key["key"], **fields}


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


@pytest.fixture
async def key(make: Make) -> dict[str, Any]:
    return await make(scopes=["users:read", "users:write"])


@pytest.fixture
async def http(sender: Sender) -> httpx.AsyncClient:
    return await sender()


class TestExchange:
    async def test_the_answer_is_that_of_the_standard(
        self, db: AsyncSession, owner: User, key: dict[str, Any], http: httpx.AsyncClient, sender: Sender
    ) -> None:
        answer = await http.post(TOKEN, data=form(key))
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        token = answer.json().pop("access_token")
        assert answer.json() == {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": 900,
            "scope": "users:read users:write",
        }
        assert token not in str((await db.scalars(select(AccessToken))).one().to_dict())
        bearer = await sender(authorization=f"Bearer {token}")
        assert (await bearer.get(ME)).json()["data"]["id"] == owner.id
        assert (await bearer.get(USERS)).status_code == 200

    async def test_basic_is_taken_too(self, db: AsyncSession, key: dict[str, Any], http: httpx.AsyncClient) -> None:
        asked = {"grant_type": "client_credentials"}
        answer = await http.post(TOKEN, data=asked, headers=basic(key["prefix"], key["key"]))
        assert answer.status_code == 200
        lower = {"Authorization": basic(key["prefix"], key["key"])["Authorization"].replace("Basic", "basic")}
        assert (await http.post(TOKEN, data=asked, headers=lower)).status_code == 200, "RFC 9110 section 11.1"
        wrong = await http.post(TOKEN, data=asked, headers=basic(key["prefix"], security.new_text(key["prefix"])))
        assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Basic")

    async def test_scopes_narrow_and_never_widen(
        self, db: AsyncSession, make: Make, http: httpx.AsyncClient, sender: Sender
    ) -> None:
        key = await make(scopes=["users:read"])
        answer = await http.post(TOKEN, data=form(key, scope="users:read users:write"))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
        wide = await make(scopes=["users:read", "users:write"])
        answer = await http.post(TOKEN, data=form(wide, scope="users:write"))
        assert answer.json()["scope"] == "users:write"
        bearer = await sender(authorization=f"Bearer {answer.json()['access_token']}")
        assert (await bearer.get(USERS)).status_code == 403

    @pytest.mark.parametrize(
        ("fields", "status", "error"),
        [
            ({"grant_type": "password"}, 400, "unsupported_grant_type"),
            ({"grant_type": ""}, 400, "invalid_request"),
            ({"client_secret": ""}, 401, "invalid_client"),
            ({"client_id": ""}, 401, "invalid_client"),
            ({"client_secret": "x" * 10_000}, 401, "invalid_client"),
            ({"scope": "x" * 10_000}, 400, "invalid_scope"),
        ],
    )
    async def test_what_is_malformed(
        self,
        db: AsyncSession,
        key: dict[str, Any],
        http: httpx.AsyncClient,
        fields: dict[str, str],
        status: int,
        error: str,
    ) -> None:
        answer = await http.post(TOKEN, data=form(key, **fields))
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert key["key"] not in answer.text

    @pytest.mark.parametrize("value", ["Basic", "Basic !", "Basic /w==", "Bearer x", "Digest x"])
    async def test_malformed_authorization(self, db: AsyncSession, http: httpx.AsyncClient, value: str) -> None:
        answer = await http.post(TOKEN, data={"grant_type": "client_credentials"}, headers={"Authorization": value})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert answer.headers["www-authenticate"] == "Basic"

    async def test_a_body_that_is_no_form(self, db: AsyncSession, key: dict[str, Any], http: httpx.AsyncClient) -> None:
        answer = await http.post(TOKEN, json=form(key))
        assert answer.status_code == 400

    async def test_who_is_no_client(
        self, db: AsyncSession, key: dict[str, Any], http: httpx.AsyncClient, client: httpx.AsyncClient, make: Make
    ) -> None:
        """An unknown client, a wrong secret, a token in the place of a key, another's id: one answer for all."""
        token = (await http.post(TOKEN, data=form(key))).json()["access_token"]
        revoked, other = await make(), await make()
        await client.delete(f"{KEYS}/{revoked['id']}")
        cases = [
            form(key, client_secret=security.new_text(key["prefix"])),
            form(key, client_secret="wrong"),
            form(key, client_id=other["prefix"]),
            form(key, client_id="kit"),
            form(key, client_id="kit_at", client_secret=token),
            form(key, client_secret=token),
            form({"prefix": (prefix := security.new_prefix()), "key": security.new_text(prefix)}),
            form(revoked),
        ]
        answers = set()
        for case in cases:
            answer = await http.post(TOKEN, data=case)
            problem = answer.json()
            problem.pop("request_id")
            answers.add((answer.status_code, answer.headers["www-authenticate"], str(problem)))
        assert len(answers) == 1
        assert "'error': 'invalid_client'" in str(answers)

    async def test_tries_are_limited(
        self, db: AsyncSession, key: dict[str, Any], http: httpx.AsyncClient, limit: Any
    ) -> None:
        limit()
        answers = [await http.post(TOKEN, data=form(key, client_secret="wrong")) for _ in range(35)]
        assert Counter(answer.status_code for answer in answers) == {401: 30, 429: 5}


class TestToken:
    @pytest.fixture
    async def bearer(self, db: AsyncSession, key: dict[str, Any], http: httpx.AsyncClient, sender: Sender) -> Any:
        token = (await http.post(TOKEN, data=form(key))).json()["access_token"]
        return await sender(authorization=f"Bearer {token}")

    async def test_it_lives_for_15_minutes(self, bearer: httpx.AsyncClient) -> None:
        with freeze(timedelta(seconds=899)):
            assert (await bearer.get(ME)).status_code == 200
        with freeze(timedelta(seconds=901)):
            assert (await bearer.get(ME)).status_code == 401

    async def test_it_ends_with_its_key(
        self, db: AsyncSession, key: dict[str, Any], bearer: httpx.AsyncClient, client: httpx.AsyncClient
    ) -> None:
        assert (await bearer.get(ME)).status_code == 200
        await client.delete(f"{KEYS}/{key['id']}")
        assert (await bearer.get(ME)).status_code == 401

    async def test_it_is_refused_with_its_owner(self, db: AsyncSession, owner: User, bearer: httpx.AsyncClient) -> None:
        await db.execute(update(User).where(User.id == owner.id).values(status_id=UserStatus.DISABLED))
        await db.commit()
        assert (await bearer.get(ME)).status_code == 401

    async def test_it_makes_no_key_and_no_session(
        self, db: AsyncSession, key: dict[str, Any], bearer: httpx.AsyncClient
    ) -> None:
        assert (await bearer.post(KEYS, json={"name": "x"})).json()["code"] == "session_required"
        token = bearer.headers["Authorization"].removeprefix("Bearer ")
        answer = await bearer.post("/api/v1/auth/refresh-token", json={"refresh_token": token})
        assert answer.status_code == 401

    async def test_expired_ones_are_purged(self, db: AsyncSession, bearer: httpx.AsyncClient) -> None:
        with freeze(timedelta(minutes=16)):
            async with session_scope() as unit:
                await PurgeExpiredTokens().run(db=unit)
        assert current_session() is None
        assert list(await db.scalars(select(AccessToken))) == []
