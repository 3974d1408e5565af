"""Guesses and mails are limited for each account, session and mailbox, however many addresses they come from."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.exceptions import WrongPassword
from app.auth.models import RefreshToken, User, UserStatus
from app.auth.repositories import UserRepository
from app.auth.security.devices import new_device_token, read_device_token
from app.auth.services.throttling import LOGINS, AccountLimits
from app.core.api.sliding_windows import SlidingWindow
from app.core.db import Database
from app.core.db.jobs import Job
from tests.auth.mails import text_of
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail

API = "/api/v1"
LOGIN = f"{API}/auth/login"
NUMBERS = count(1)  # of the addresses that the tests of this file come from

Configure: TypeAlias = Callable[..., AuthConfig]
Drain: TypeAlias = Callable[[], Awaitable[int]]
Send: TypeAlias = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def send(app: FastAPI, limit: Callable[[], None]) -> Send:
    """Send each request from another address, with limits on."""
    limit()

    async def request(method: str, path: str, **options: Any) -> httpx.Response:
        number = next(NUMBERS)
        address = (f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 50000)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=address)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(method, API + path, **options)

    return request


@pytest.fixture
async def ann(db: AsyncSession) -> User:
    """An account whose names no other test has counted."""
    name = f"Ann{uuid4().hex[:12]}"
    return await UserFactory.create(id=uuid4().int % 2**31, username=name, email=f"{name}@example.com")


async def login(send: Send, name: str, password: str = "wrong password", **others: Any) -> httpx.Response:
    return await send("POST", "/auth/login", data={"username": name, "password": password, **others})


async def codes(send: Send, times: int, *names: str, **others: Any) -> Counter[int]:
    answers = [await login(send, names[number % len(names)], **others) for number in range(times)]
    return Counter(answer.status_code for answer in answers)


def shown(answer: httpx.Response) -> tuple[Any, ...]:
    """All that a caller sees, but ids and lengths."""
    body = {name: value for name, value in answer.json().items() if name != "request_id"}
    varying = {"x-request-id", "x-conversation-id", "set-cookie", "content-length", "retry-after"}
    headers = {name: value for name, value in answer.headers.items() if name not in varying}
    return answer.status_code, body, headers, int(answer.headers.get("retry-after", 0)) > 15


class TestGuessing:
    async def test_sixty_addresses_check_one_account_ten_times_at_most_and_its_owner_gets_in(
        self, ann: User, send: Send
    ) -> None:
        known = (await login(send, ann.email, PASSWORD)).json()["device_token"]
        spellings = [ann.email, ann.username.upper(), ann.email.upper(), ann.username]

        assert (await codes(send, 60, *spellings))[401] <= 10
        assert {(await login(send, name, PASSWORD)).status_code for name in spellings} == {429}
        assert (await login(send, ann.username, PASSWORD, device_token=known)).status_code == 200

    async def test_no_15_minutes_hold_more_than_five_tries_of_a_name(self) -> None:
        rates, algorithm = LOGINS.windows.rates, SlidingWindow()
        state, admitted = algorithm.initial(rates), list[int]()
        for second in range(4 * 900):
            state, verdict = algorithm.step(rates, state, second * 1000, 1)
            admitted += [second] if verdict.allowed else []
        assert max(sum(start <= one < start + 900 for one in admitted) for start in admitted) == 5
        assert admitted[:6] == [0, 1, 2, 30, 120, 900], "the delays grow"

    async def test_sixty_at_once_are_three_checks(self, committed: Database, send: Send) -> None:
        user = await UserFactory.create(username=uuid4().hex)
        answers = await asyncio.gather(*(login(send, user.email) for _ in range(60)))
        assert Counter(answer.status_code for answer in answers) == {401: 3, 429: 57}

    async def test_known_and_unknown_names_get_the_same_answers(self, ann: User, send: Send) -> None:
        disabled = await UserFactory.create(username=uuid4().hex, status_id=UserStatus.DISABLED)
        unknown = uuid4().hex
        names = [ann.email, ann.username, disabled.username, unknown, f"{unknown}@example.com", f"{unknown}@b@c"]

        seen = [[shown(await login(send, name)) for _ in range(5)] for name in names]

        assert [answer[0] for answer in seen[0]] == [401, 401, 401, 429, 429]
        assert all(answers == seen[0] for answers in seen)
        assert set(seen[0][-1][2]) >= {"ratelimit", "ratelimit-policy"}
        assert "logins" not in str(seen)

    async def test_address_and_name_of_one_account_count_apart(self, ann: User, send: Send) -> None:
        """Otherwise whoever knows one would learn the other."""
        assert await codes(send, 4, ann.email) == {401: 3, 429: 1}
        assert shown(await login(send, ann.username)) == shown(await login(send, uuid4().hex))

    async def test_right_passwords_do_not_count(self, ann: User, send: Send) -> None:
        assert await codes(send, 8, ann.email, password=PASSWORD) == {200: 8}
        assert await codes(send, 4, ann.email) == {401: 3, 429: 1}

    async def test_the_right_password_of_an_account_that_cannot_be_used_counts(
        self, ann: User, send: Send, configure: Configure, db: AsyncSession
    ) -> None:
        """Otherwise whoever registers an address could learn whether it was free."""
        configure(USER_VERIFICATION_REQUIRED=True)
        ann.is_verified = False
        await db.flush()

        assert await codes(send, 5, ann.email, password=PASSWORD) == {401: 3, 429: 2}

    async def test_a_refused_one_hashes_nothing_and_an_overloaded_service_counts_nothing(
        self, ann: User, send: Send, configure: Configure
    ) -> None:
        hasher, release = configure(PASSWORD_HASH_WORKERS=1).password_hasher, threading.Event()
        await codes(send, 4, ann.username)
        busy = asyncio.gather(
            hasher.pool.run(partial(release.wait, 60)),
            *(hasher.hash(PASSWORD) for _ in range(50)),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        try:
            assert await codes(send, 2, ann.username) == {429: 2}
            assert await codes(send, 8, ann.email) == {503: 8}
        finally:
            release.set()
            await busy
        assert await codes(send, 4, ann.email) == {401: 3, 429: 1}

    async def test_nothing_is_counted_where_limits_are_off(self, ann: User, client: httpx.AsyncClient) -> None:
        wrong = {"username": ann.email, "password": "wrong password"}
        assert {(await client.post(LOGIN, data=wrong)).status_code for _ in range(8)} == {401}


class TestDevice:
    async def token(self, send: Send, user: User) -> str:
        token: str = (await login(send, user.email, PASSWORD)).json()["device_token"]
        return token

    async def test_it_has_an_allowance_of_its_own_that_is_no_larger(self, ann: User, send: Send) -> None:
        one, other = await self.token(send, ann), await self.token(send, ann)
        await codes(send, 4, ann.email)

        assert await codes(send, 5, ann.email, ann.username, device_token=one) == {401: 3, 429: 2}
        assert (await login(send, ann.email, PASSWORD, device_token=one)).status_code == 429
        assert (await login(send, ann.email, PASSWORD, device_token=other)).status_code == 200

    async def test_json_takes_it_too(self, ann: User, send: Send) -> None:
        token = await self.token(send, ann)
        await codes(send, 4, ann.email)
        body = {"email": ann.email, "password": PASSWORD}

        assert (await send("POST", "/auth/login", json=body)).status_code == 429
        assert (await send("POST", "/auth/login", json={**body, "device_token": token})).status_code == 200
        other = {"username": uuid4().hex, "password": "x", "device_token": None}
        assert (await send("POST", "/auth/login", json=other)).status_code == 401

    async def test_one_that_is_none_of_the_account_is_ignored(self, ann: User, send: Send) -> None:
        bob = await UserFactory.create(username=uuid4().hex)
        good, foreign = await self.token(send, ann), await self.token(send, bob)
        head, _, proof = good.rpartition(".")
        forged = [
            foreign,
            f"{ann.id}{foreign[foreign.index('.') :]}",
            f"{head}.{'A' * 43}",
            f"{head[:-1]}{'B' if head[-1] == 'A' else 'A'}.{proof}",
            good[:-1],
            good + "=",
            f" {good}",
            "x" * 10_000,
            "٣.٣.x.y",
            (await access_token(send, ann)),
        ]
        await codes(send, 4, ann.email)
        plain = shown(await login(send, ann.email, PASSWORD))

        answers = [shown(await login(send, ann.email, PASSWORD, device_token=token)) for token in forged]

        assert answers == [plain] * len(forged)
        assert plain[0] == 429
        assert await codes(send, 4, uuid4().hex, device_token=good) == {401: 3, 429: 1}

    @pytest.mark.parametrize("remedy", ["password", "reset", "logout-all", "disabled"])
    async def test_it_does_not_survive_a_remedy(
        self,
        ann: User,
        send: Send,
        db: AsyncSession,
        drain: Drain,
        captured_mail: CapturedMail,
        remedy: str,
    ) -> None:
        tokens = (await login(send, ann.email, PASSWORD)).json()
        bearer, new = {"Authorization": f"Bearer {tokens['access_token']}"}, "another good password"
        if remedy == "password":
            change = {"current_password": PASSWORD, "new_password": new}
            assert (await send("POST", "/profile/password", json=change, headers=bearer)).status_code == 204
        elif remedy == "reset":
            await send("POST", "/auth/restore-password", json={"email": ann.email})
            await drain()
            body = {"token": captured_mail.token_for(ann.email), "new_password": new}
            assert (await send("POST", "/auth/reset-password", json=body)).status_code == 204
        elif remedy == "logout-all":
            assert (await send("POST", "/auth/logout-all", headers=bearer)).status_code == 204
        else:
            admin = await UserFactory.create(is_superuser=True)
            bearer = {"Authorization": f"Bearer {(await access_token(send, admin))}"}
            for status in (UserStatus.DISABLED, UserStatus.ACTIVE):
                answer = await send("PATCH", f"/users/{ann.id}", json={"status_id": status}, headers=bearer)
                assert answer.status_code == 200
        await codes(send, 4, ann.email)

        right = PASSWORD if remedy in ("logout-all", "disabled") else new
        assert (await login(send, ann.email, right, device_token=tokens["device_token"])).status_code == 429
        assert (await login(send, ann.username, right)).status_code == 200

    def test_any_key_of_the_ring_will_do(self) -> None:
        """While the key is changed, the next process has another one."""
        old, new, strange = (SecretStr(letter * 32) for letter in "abc")
        token = new_device_token(7, 3, key=old)
        assert read_device_token(token, keys=[new, old]) == read_device_token(token, keys=[old])
        assert read_device_token(token, keys=[new, strange]) is None
        assert new_device_token(7, 3, key=old) != token


async def access_token(send: Send, user: User) -> str:
    """An access token."""
    token: str = (await login(send, user.email, PASSWORD)).json()["access_token"]
    return token


class TestConfirmations:
    """A stolen access token is no way to guess the password."""

    async def test_ten_wrong_ones_in_15_minutes(self, ann: User, send: Send) -> None:
        bearer = {"Authorization": f"Bearer {await access_token(send, ann)}"}
        for _ in range(12):  # right ones are given back
            async with AccountLimits().confirmation(ann.id):
                pass
        for _ in range(9):
            with pytest.raises(WrongPassword):
                async with AccountLimits().confirmation(ann.id):
                    raise WrongPassword
        tries: list[tuple[str, str, dict[str, str]]] = [
            ("POST", "/profile/password", {"new_password": "another good password"}),
            ("PATCH", "/profile", {"email": "new@example.com"}),
            ("DELETE", "/profile", {}),
        ]
        answers = [
            await send(method, path, json={**body, "current_password": "wrong"}, headers=bearer)
            for method, path, body in tries
        ]

        assert [answer.status_code for answer in answers] == [422, 429, 429]
        assert int(answers[1].headers["retry-after"]) > 800
        right = {"current_password": PASSWORD}
        assert (await send("DELETE", "/profile", json=right, headers=bearer)).status_code == 429
        assert (await send("PATCH", "/profile", json={"username": uuid4().hex}, headers=bearer)).status_code == 200


class TestRefreshing:
    async def test_thirty_a_minute_for_a_session_and_it_lives_on(self, ann: User, send: Send, db: AsyncSession) -> None:
        token = (await login(send, ann.email, PASSWORD)).json()["refresh_token"]
        other = (await login(send, ann.email, PASSWORD)).json()["refresh_token"]

        async def refresh(token: str) -> httpx.Response:
            return await send("POST", "/auth/refresh-token", json={"refresh_token": token})

        for _ in range(30):
            answer = await refresh(token)
            assert answer.status_code == 200
            token = answer.json()["refresh_token"]
        rotated = select(func.count()).where(RefreshToken.rotated_at.is_not(None))

        assert (await refresh(token)).status_code == 429
        assert await db.scalar(rotated) == 30, "a refused refresh uses nothing up"
        assert (await refresh(other)).status_code == 200


class TestMails:
    async def jobs(self, db: AsyncSession) -> int:
        return await db.scalar(select(func.count()).select_from(Job)) or 0

    @pytest.mark.parametrize("path", ["restore-password", "resend-verification"])
    async def test_forty_requests_are_three_mails_and_tell_nothing(
        self,
        db: AsyncSession,
        ann: User,
        send: Send,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
        path: str,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        ann.is_verified = path == "restore-password"
        await db.flush()
        seen, stored = [], []
        for email in (ann.email, f"{uuid4().hex}@example.com"):
            before = await self.jobs(db)
            spellings = [email, email.upper()]
            answers = [
                shown(await send("POST", f"/auth/{path}", json={"email": spellings[number % 2]}))
                for number in range(40)
            ]
            assert {answer[0] for answer in answers} == {202}
            seen.append(answers)
            stored.append(await self.jobs(db) - before)

        await drain()

        assert seen[0] == seen[1]
        assert stored[0] == stored[1]
        assert len(captured_mail.messages()) == len(captured_mail.to(ann.email)) == 3

    async def test_kinds_count_apart(
        self, db: AsyncSession, ann: User, send: Send, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        ann.is_verified = False
        await db.flush()
        for path in ["restore-password"] * 5 + ["resend-verification"]:
            await send("POST", f"/auth/{path}", json={"email": ann.email})
        await drain()
        assert len(captured_mail.to(ann.email)) == 4

    async def test_registering_a_taken_address_or_name_does_not_flood(
        self,
        db: AsyncSession,
        ann: User,
        send: Send,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        stranger = f"{uuid4().hex}@example.com"
        taken = [{"email": ann.email, "username": uuid4().hex} for _ in range(6)]
        taken += [{"email": stranger, "username": ann.username} for _ in range(6)]

        answers = [await send("POST", "/auth/register", json={**body, "password": PASSWORD}) for body in taken]
        free = await send("POST", "/auth/register", json={"email": stranger, "password": PASSWORD})
        await drain()

        assert {answer.status_code for answer in answers} == {202}
        assert {str(shown(answer)) for answer in [*answers, free]} == {str(shown(free))}
        assert len(captured_mail.to(ann.email)) == 3
        assert len(captured_mail.to(stranger)) == 4, "whoever found a free name at last gets the link"
        assert "#token=" in text_of(captured_mail.to(stranger)[-1])
        assert not any(ann.username in text_of(mail) for mail in captured_mail.to(stranger))

    async def test_registering_and_deleting_does_not_flood(
        self, db: AsyncSession, send: Send, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        body = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        statuses = []
        for _ in range(4):
            answer = await send("POST", "/auth/register", json=body)
            statuses.append(answer.status_code)
            if answer.status_code == 201:
                await UserRepository().delete(db=db, model_id=answer.json()["data"]["id"])
            await drain()

        assert statuses == [201, 201, 201, 429]
        assert int(answer.headers["retry-after"]) > 3500
        assert await db.scalar(select(User.id).where(User.email == body["email"], User.deleted_at.is_(None))) is None

    @pytest.mark.parametrize("required", [True, False])
    async def test_changes_of_address_mail_neither_mailbox_more(
        self,
        db: AsyncSession,
        ann: User,
        send: Send,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
        required: bool,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=required)
        victim, email = f"{uuid4().hex}@example.com", ann.email
        bearer = {"Authorization": f"Bearer {await access_token(send, ann)}"}
        thief = await UserFactory.create(id=uuid4().int % 2**31, username=uuid4().hex)
        other = {"Authorization": f"Bearer {await access_token(send, thief)}"}

        async def change(to: str, headers: dict[str, str]) -> int:
            body = {"email": to, "current_password": PASSWORD}
            return (await send("PATCH", "/profile", json=body, headers=headers)).status_code

        if required:
            assert [await change(victim, bearer) for _ in range(4)] == [200, 200, 200, 429]
            assert await change("elsewhere@example.com", bearer) == 429, "one account mails no number of mailboxes"
            assert await change(victim, other) == 429
            await drain()
            assert len(captured_mail.to(victim)) == len(captured_mail.to(email)) == 3
        else:
            back = [await change(to, bearer) for to in (victim, email) * 4]
            assert back == [200] * 6 + [429, 200]  # the last one is the address it has
