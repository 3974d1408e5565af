"""Logging in, and what a refusal tells."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.models import AuthSession, RefreshToken, User, UserStatus
from app.auth.security.passwords import PasswordHasher
from app.core.db import Database, utcnow
from tests.core.api.asgi import Exchange
from tests.core.log.capture import captured_log
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, login_user

URL = "/api/v1/auth/login"


def form(user: User, password: str = PASSWORD, **others: Any) -> dict[str, Any]:
    return {"username": user.email, "password": password} | others


def without_ids(problem: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in problem.items() if name != "request_id"}


class TestLogin:
    async def test_the_answer_is_rfc_6749(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        answer = await client.post(URL, data=form(await UserFactory.create()))

        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        tokens = answer.json()
        assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in", "device_token"}
        assert tokens["token_type"] == "bearer"
        assert 895 <= tokens["expires_in"] <= 900

    @pytest.mark.parametrize("name", ["Ann", "ANN", "ann", "Ann@example.com", "ANN@EXAMPLE.COM"])
    async def test_name_or_address_in_any_case(self, db: AsyncSession, client: httpx.AsyncClient, name: str) -> None:
        await UserFactory.create(username="Ann", email="Ann@example.com")

        assert (await client.post(URL, data={"username": name, "password": PASSWORD})).status_code == 200

    async def test_fields_it_does_not_know_are_ignored(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        """RFC 6749 section 3.2."""
        data = form(await UserFactory.create(), client_id="x", client_secret="y", other="z")

        assert (await client.post(URL, data=data)).status_code == 200
        assert (await client.post(URL, data=data | {"grant_type": "password"})).status_code == 200
        assert (await client.post(URL, data=data | {"grant_type": ""})).status_code == 200
        assert (await client.post(URL, data=data | {"grant_type": "refresh_token"})).status_code == 422

    async def test_tokens_are_stored_as_hashes(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        tokens = (await client.post(URL, data=form(await UserFactory.create()))).json()

        rows = (await db.scalars(select(RefreshToken))).all()
        assert len(rows) == 1
        assert tokens["refresh_token"] not in str(rows[0].to_dict())

    async def test_the_session_knows_device_and_address(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        agent = "Test\tBrowser " + "x" * 500
        await client.post(URL, data=form(await UserFactory.create()), headers={"User-Agent": agent})

        session = (await db.scalars(select(AuthSession))).one()
        assert session.device == ("TestBrowser " + "x" * 500)[:200]
        assert session.address == "192.0.2.1"

    async def test_an_old_hash_is_renewed(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Callable[..., AuthConfig]
    ) -> None:
        user = await UserFactory.create()
        configure(PASSWORD_HASH_ROUNDS=3)

        await login_user(client, user)

        stored = await db.scalar(select(User.password_hash).where(User.id == user.id))
        assert stored is not None
        assert "t=3" in stored
        await login_user(client, user)

    async def test_logins_at_once_may_all_renew_it(
        self, committed: Database, client: httpx.AsyncClient, configure: Callable[..., AuthConfig]
    ) -> None:
        user = await UserFactory.create()
        configure(PASSWORD_HASH_ROUNDS=3)

        answers = await asyncio.gather(*(client.post(URL, data=form(user)) for _ in range(5)))

        assert [answer.status_code for answer in answers] == [200] * 5


class TestRefusal:
    async def test_it_is_the_same_whatever_the_reason(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        disabled = await UserFactory.create(status_id=UserStatus.DISABLED)
        deleted = await UserFactory.create(deleted_at=utcnow())
        attempts = [
            form(user, "wrong password"),
            form(user, "x" * 4000),
            form(disabled),
            form(deleted),
            {"username": "nobody@example.com", "password": PASSWORD},
            {"username": "nobody", "password": PASSWORD},
            {"username": "no@body@example", "password": PASSWORD},
            {"username": "no body", "password": PASSWORD},
        ]

        answers = [await client.post(URL, data=attempt) for attempt in attempts]

        assert {answer.status_code for answer in answers} == {401}
        first = without_ids(answers[0].json())
        assert first["error"] == "invalid_grant"
        assert first["code"] == "invalid_grant"
        assert all(without_ids(answer.json()) == first for answer in answers)
        assert all(answer.headers["WWW-Authenticate"].startswith("Bearer") for answer in answers)
        assert all(answer.headers["Cache-Control"] == "no-store" for answer in answers)

    async def test_an_unverified_account_is_refused_like_an_unknown_one(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Callable[..., AuthConfig]
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        user = await UserFactory.create(is_verified=False)

        known = await client.post(URL, data=form(user))
        unknown = await client.post(URL, data={"username": "nobody", "password": PASSWORD})

        assert known.status_code == 401
        assert without_ids(known.json()) == without_ids(unknown.json())

    async def test_unknown_accounts_take_as_long(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Callable[..., AuthConfig]
    ) -> None:
        costly = configure(PASSWORD_HASH_MEMORY_KIB=19456, PASSWORD_HASH_ROUNDS=8)  # beside it the rest is nothing
        user = await UserFactory.create(password_hash=await costly.password_hasher.hash(PASSWORD))

        async def cost(data: dict[str, Any]) -> float:
            start = time.process_time()  # what else the machine does must not count
            assert (await client.post(URL, data=data)).status_code == 401
            return time.process_time() - start

        await cost({"username": "warm-up", "password": "x"})
        known = min([await cost(form(user, "wrong password")) for _ in range(5)])
        unknown = min([await cost({"username": "nobody", "password": "wrong password"}) for _ in range(5)])
        assert 0.25 < known / unknown < 4  # without a hash to compare with it is more than ten

    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"username": "bob"},
            {"password": "x"},
            {"username": "", "password": "x"},
            {"username": "a\0b", "password": "x"},
        ],
        ids=str,
    )
    async def test_a_form_without_its_fields_is_a_422(
        self, db: AsyncSession, client: httpx.AsyncClient, data: dict[str, str]
    ) -> None:
        assert (await client.post(URL, data=data)).status_code == 422

    async def test_another_content_type_is_an_empty_form(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        body = b'{"username": "bob", "password": "x"}'

        answer = await client.post(URL, content=body, headers={"Content-Type": "text/plain"})

        assert answer.status_code == 422
        assert [fault["loc"] for fault in answer.json()["errors"]] == [["body", "username"], ["body", "password"]]


class TestJSON:
    @pytest.mark.parametrize(
        "names", [{"email": "Ann@example.com"}, {"username": "ann"}, {"username": "ANN@example.com"}], ids=str
    )
    async def test_address_or_name(self, db: AsyncSession, client: httpx.AsyncClient, names: dict[str, str]) -> None:
        await UserFactory.create(username="Ann", email="Ann@example.com")

        answer = await client.post(URL, json=names | {"password": PASSWORD})
        refused = await client.post(URL, json=names | {"password": "wrong password"})

        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json()["token_type"] == "bearer"
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_grant")

    @pytest.mark.parametrize(
        ("changes", "loc"),
        [
            ({"all": "all"}, ["body", "?"]),
            ({"grant_type": "password"}, ["body", "grant_type"]),
            ({"email": "ann@example.com"}, ["body"]),
            ({"username": None}, ["body", "username"]),
            ({"username": ["zqx"]}, ["body", "username"]),
            ({"username": "zqx" * 200}, ["body", "username"]),
            ({"password": ""}, ["body", "password"]),
            ({"password": 12345678}, ["body", "password"]),
        ],
        ids=str,
    )
    async def test_each_fault_is_named_and_the_input_is_not_repeated(
        self, db: AsyncSession, client: httpx.AsyncClient, changes: dict[str, Any], loc: list[str]
    ) -> None:
        answer = await client.post(URL, json={"username": "zqxann", "password": PASSWORD} | changes)

        assert answer.status_code == 422
        assert [fault["loc"] for fault in answer.json()["errors"]] == [loc]
        assert "zqx" not in answer.text
        assert PASSWORD not in answer.text

    async def test_without_any_name(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        answer = await client.post(URL, json={"password": PASSWORD})

        assert (answer.status_code, answer.json()["errors"][0]["type"]) == (422, "login_name")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"username": "\\ud800"}'])
    async def test_broken_bodies_are_refused(self, db: AsyncSession, client: httpx.AsyncClient, content: bytes) -> None:
        answer = await client.post(URL, content=content, headers={"Content-Type": "application/json"})

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"][0] == "body"

    def test_the_document_shows_both(self, app: FastAPI) -> None:
        operation = app.openapi()["paths"][URL]["post"]

        assert list(operation["requestBody"]["content"]) == ["application/x-www-form-urlencoded", "application/json"]
        assert operation["responses"]["422"] == {"$ref": "#/components/responses/Problem422"}


class TestLimit:
    @pytest.mark.parametrize(
        ("path", "times"),
        [("register", 5), ("resend-verification", 5), ("reset-password", 10), ("verify-email", 10)],
    )
    async def test_every_open_route_that_costs_something_is_limited(
        self, db: AsyncSession, client: httpx.AsyncClient, limit: Callable[[], None], path: str, times: int
    ) -> None:
        limit()

        codes = [(await client.post(f"/api/v1/auth/{path}", json={})).status_code for _ in range(times + 1)]

        assert codes == [422] * times + [429]

    async def test_the_sixth_attempt_in_a_minute_is_a_429(
        self, db: AsyncSession, client: httpx.AsyncClient, limit: Callable[[], None]
    ) -> None:
        limit()
        names = [str(uuid4()) for _ in range(6)]  # for one name the delays grow sooner

        codes = [(await client.post(URL, data={"username": name, "password": "x"})).status_code for name in names]

        assert codes == [401] * 5 + [429]


class TestOverload:
    """While more passwords wait than can be hashed in time, a login is refused, whoever's it is, and costs nothing."""

    @pytest.fixture
    async def hasher(self, configure: Callable[..., AuthConfig]) -> AsyncIterator[PasswordHasher]:
        """One thread, which is busy until the test is over."""
        hasher = configure(PASSWORD_HASH_WORKERS=1).password_hasher
        release = threading.Event()
        busy = asyncio.create_task(hasher.pool.run(partial(release.wait, 60)))
        await asyncio.sleep(0)
        yield hasher
        release.set()
        await busy

    async def test_it_is_a_503_for_known_and_unknown_accounts(
        self, db: AsyncSession, client: httpx.AsyncClient, hasher: PasswordHasher
    ) -> None:
        user = await UserFactory.create()
        waiting = [asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(40)]
        await asyncio.sleep(0)

        known = await client.post(URL, data=form(user))
        unknown = await client.post(URL, data={"username": "nobody", "password": PASSWORD})

        assert (known.status_code, known.json()["code"]) == (503, "too_many_passwords")
        assert known.headers["retry-after"] == "3"
        assert without_ids(known.json()) == without_ids(unknown.json())
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert await db.scalar(select(AuthSession)) is None

    async def test_a_client_that_leaves_is_not_waited_for(
        self, db: AsyncSession, app: FastAPI, hasher: PasswordHasher
    ) -> None:
        body = f"username=nobody&password={PASSWORD.replace(' ', '+')}".encode()
        kind = {"content-type": "application/x-www-form-urlencoded"}
        sent: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]
        exchange = Exchange(URL, method="POST", headers=kind, sent=sent, leaves=True)

        with captured_log() as lines:
            async with asyncio.timeout(60):
                await exchange.run(app)

        assert exchange.status == 503
        assert lines.one("request")["status"] == 499


class TestFortyAtOnce:
    async def test_health_answers_meanwhile(
        self, committed: Database, client: httpx.AsyncClient, configure: Callable[..., AuthConfig]
    ) -> None:
        configure(PASSWORD_HASH_MEMORY_KIB=19456, PASSWORD_HASH_ROUNDS=2)  # as by default: each login hashes anew
        user = await UserFactory.create()
        logins = [asyncio.create_task(client.post(URL, data=form(user))) for _ in range(40)]

        slowest = 0.0
        while not all(login.done() for login in logins):
            start = time.perf_counter()
            assert (await client.get("/health/live")).status_code == 200
            slowest = max(slowest, time.perf_counter() - start)
            await asyncio.sleep(0.01)

        codes = {(await login).status_code for login in logins}
        assert 200 in codes
        assert codes <= {200, 503}  # on a busy machine some would wait too long
        assert slowest < 5  # measured: 0.07 to 0.2 s

    async def test_a_login_that_a_password_change_overtook_is_refused(
        self, committed: Database, client: httpx.AsyncClient
    ) -> None:
        """The old password was right when it was looked up; by the time it was checked it had been changed."""
        user = await UserFactory.create()
        await login_user(client, user)
        change = {"current_password": PASSWORD, "new_password": "another good one"}

        results = await asyncio.gather(
            client.post("/api/v1/profile/password", json=change),
            *(client.post(URL, data=form(user)) for _ in range(10)),
        )

        assert results[0].status_code == 204
        async with committed.session_scope(read_only=True) as db:
            live = (await db.scalars(select(AuthSession).where(AuthSession.revoked_at.is_(None)))).all()
        assert len(live) == 1, "only the session that changed the password goes on"
