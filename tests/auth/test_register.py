"""Registering, one at a time and fifty at once."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.models import User
from app.core.configs import get_settings
from app.core.db import Database
from app.core.db.jobs import Job
from tests.auth.mails import text_of
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail

URL = "/api/v1/auth/register"
Drain = Callable[[], Awaitable[int]]
Configure = Callable[..., AuthConfig]
LONGEST = "".join(chr(0x4E00 + number) for number in range(256))


def body(**changes: Any) -> dict[str, Any]:
    return {"email": "Bob@example.com", "username": "Bob", "password": PASSWORD} | changes


class TestRegister:
    async def test_the_answer_is_the_user_and_no_more(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        answer = await client.post(URL, json=body())

        assert answer.status_code == 201
        assert set(answer.json()) == {"data"}
        user = answer.json()["data"]
        assert list(user) == ["id", "email", "username", "status_id", "is_verified", "created_at", "updated_at"]
        assert user["email"] == "Bob@example.com"
        assert user["username"] == "Bob"
        assert user["status_id"] == 1
        assert user["is_verified"] is False

    async def test_the_password_is_stored_as_argon2id(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Callable[..., AuthConfig]
    ) -> None:
        defaults = {name: AuthConfig.model_fields[f"PASSWORD_HASH_{name}"].default for name in ("MEMORY_KIB", "ROUNDS")}
        configure(**{f"PASSWORD_HASH_{name}": value for name, value in defaults.items()})

        await client.post(URL, json=body())

        stored = await db.scalar(select(User.password_hash).where(User.username == "Bob"))
        assert stored is not None
        assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    async def test_a_welcome_mail_with_a_link_is_sent(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        await client.post(URL, json=body())
        assert captured_mail.messages() == []

        await drain()

        (mail,) = captured_mail.to("Bob@example.com")
        assert "Welcome" in mail["Subject"]
        token = captured_mail.token_for("Bob@example.com")
        assert (await client.post("/api/v1/auth/verify-email", json={"token": token})).status_code == 204
        assert await db.scalar(select(User.is_verified).where(User.username == "Bob"))

    async def test_no_row_holds_the_token(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        await client.post(URL, json=body())
        await drain()

        token = captured_mail.token_for("Bob@example.com")
        payloads = (await db.scalars(select(Job.payload))).all()
        assert payloads
        assert token not in str(payloads)

    @pytest.mark.parametrize("email", ["Bob@example.com", "bob@EXAMPLE.com", "\uff42ob@example.com"])
    async def test_a_taken_address_is_a_conflict(self, db: AsyncSession, client: httpx.AsyncClient, email: str) -> None:
        await client.post(URL, json=body())

        answer = await client.post(URL, json=body(email=email, username="Other"))

        assert answer.status_code == 409
        assert answer.json()["code"] == "email_taken"

    @pytest.mark.parametrize("username", ["Bob", "bOB"])
    async def test_a_taken_name_is_a_conflict(self, db: AsyncSession, client: httpx.AsyncClient, username: str) -> None:
        await client.post(URL, json=body())

        answer = await client.post(URL, json=body(email="other@example.com", username=username))

        assert answer.status_code == 409
        assert answer.json()["code"] == "username_taken"

    async def test_a_deleted_users_address_and_name_are_free_again(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        first = (await client.post(URL, json=body())).json()["data"]
        user = await db.get_one(User, first["id"])
        user.deleted_at = user.created_at
        await db.commit()

        second = await client.post(URL, json=body())

        assert second.status_code == 201
        assert second.json()["data"]["id"] > first["id"]

    async def test_it_can_be_closed(self, db: AsyncSession, client: httpx.AsyncClient, configure: Configure) -> None:
        configure(USER_REGISTRATION_ALLOWED=False)

        answer = await client.post(URL, json=body())

        assert answer.status_code == 403
        assert answer.json()["code"] == "registration_closed"


class TestWithoutAName:
    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("ann.lee@example.com", r"ann\.lee"),
            ("ann+news@example.com", "ann"),
            ("Jörg_O'Neil@example.com", "Jorg_ONeil"),
            ("al@example.com", r"al\d{2}"),
            ("用户@example.com", "user"),
            ("a" * 40 + "@example.com", "a" * 32),
        ],
    )
    async def test_one_is_made_from_the_address(
        self, db: AsyncSession, client: httpx.AsyncClient, address: str, expected: str
    ) -> None:
        answer = await client.post(URL, json={"email": address, "password": PASSWORD})

        assert answer.status_code == 201
        assert re.fullmatch(expected, answer.json()["data"]["username"])

    async def test_a_taken_name_gets_digits(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        for name in ("ANN", "a" * 32):
            await UserFactory.create(username=name, email=f"{name}@example.org")

        names = [
            (await client.post(URL, json={"email": f"{local}@example.com", "password": PASSWORD})).json()["data"]
            for local in ("ann", "a" * 32)
        ]

        assert re.fullmatch(r"ann\d{2}", names[0]["username"])
        assert re.fullmatch(r"a{30}\d{2}", names[1]["username"])

    async def test_a_taken_address_is_a_conflict(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        account = {"email": "ann@example.com", "password": PASSWORD}

        assert (await client.post(URL, json=account)).status_code == 201
        answer = await client.post(URL, json=account)

        assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")

    async def test_where_addresses_are_verified_free_and_taken_get_one_answer(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Configure
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        account = {"email": "ann@example.com", "password": PASSWORD}

        free, taken, name = [
            await client.post(URL, json=account | changes) for changes in ({}, {}, {"email": "ann@example.org"})
        ]

        assert free.status_code == taken.status_code == name.status_code == 202
        assert free.json() == taken.json() == name.json()
        assert await db.scalar(select(func.count()).select_from(User)) == 2

    async def test_many_at_once_get_different_names(self, committed: Database, client: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(
            *(
                client.post(URL, json={"email": f"ann@{number}.example.com", "password": PASSWORD})
                for number in range(8)
            )
        )

        assert [answer.status_code for answer in answers] == [201] * 8
        names = {answer.json()["data"]["username"] for answer in answers}
        assert len(names) == 8
        assert all(re.fullmatch(r"ann(\d{2})*", name) for name in names)


class TestInput:
    @pytest.mark.parametrize(
        ("changes", "loc"),
        [
            ({"email": "nobody"}, "email"),
            ({"email": "Bob <bob@example.com>"}, "email"),
            ({"email": "a@b.example.com\r\nBcc: c@example.com"}, "email"),
            ({"email": "=?utf-8?q?=0D=0ABcc=3Ac?=@example.com"}, "email"),
            ({"email": "x" * 300 + "@example.com"}, "email"),
            ({"email": "bob@localhost"}, "email"),
            ({"email": 5}, "email"),
            ({"username": "qq"}, "username"),
            ({"username": "a" * 33}, "username"),
            ({"username": "bob@example.com"}, "username"),
            ({"username": "bob\n"}, "username"),
            ({"username": "bób"}, "username"),
            ({"username": None}, "username"),
            ({"password": "a short one"}, "password"),
            ({"password": "x" * 257}, "password"),
            ({"password": "ﷺ" * 15}, "password"),  # 18 characters each, once normalized
            ({"password": ["x" * 10]}, "password"),
            ({"is_superuser": True}, "?"),  # names it does not know are the caller's text
            ({"id": 1}, "?"),
        ],
        ids=str,
    )
    async def test_each_fault_is_named_and_the_input_is_not_repeated(
        self, db: AsyncSession, client: httpx.AsyncClient, changes: dict[str, Any], loc: str
    ) -> None:
        answer = await client.post(URL, json=body(**changes))

        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        assert fault["loc"] == ["body", loc]
        assert PASSWORD not in answer.text
        value = next(iter(changes.values()))
        assert not (isinstance(value, str) and value in answer.text)

    async def test_nul_in_a_password_is_refused(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        assert (await client.post(URL, json=body(password="secret\0secret"))).status_code == 422

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"email": "\\ud800@example.com"}'])
    async def test_broken_bodies_are_refused(self, db: AsyncSession, client: httpx.AsyncClient, content: bytes) -> None:
        answer = await client.post(URL, content=content, headers={"Content-Type": "application/json"})

        assert answer.status_code == 422

    @pytest.mark.parametrize(
        "password",
        ["nocapitalsatall", LONGEST, "пароль на русском", "  spaces around  ", LONGEST[:255] + "🔑"],
        ids=str,
    )
    async def test_passwords_have_no_rules_of_composition_and_are_kept_whole(
        self, db: AsyncSession, client: httpx.AsyncClient, password: str
    ) -> None:
        assert (await client.post(URL, json=body(password=password))).status_code == 201

        for given, status in ((password, 200), (password[:-1], 401), (f"{password} ", 401)):
            answer = await client.post("/api/v1/auth/login", data={"username": "bob", "password": given})
            assert answer.status_code == status

    async def test_the_normal_form_of_a_password_is_what_counts(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        await client.post(URL, json=body(password="crème brûlée au café"))

        for given in ("cre\u0300me bru\u0302le\u0301e au cafe\u0301", "\uff43rème brûlée au café"):
            answer = await client.post("/api/v1/auth/login", data={"username": "bob", "password": given})
            assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"password": "eleven char"}, "password_too_short"),
            ({"password": "Password1234"}, "password_too_common"),
            ({"username": "gracehopper", "password": "I am Grace-Hopper"}, "password_contains_name"),
        ],
        ids=str,
    )
    async def test_a_weak_password_is_explained_and_not_repeated(
        self, db: AsyncSession, client: httpx.AsyncClient, changes: dict[str, Any], kind: str
    ) -> None:
        answer = await client.post(URL, json=body(**changes))

        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "weak_password")
        (fault,) = problem["errors"]
        assert (fault["loc"], fault["type"], fault["msg"]) == (["body", "password"], kind, problem["detail"])
        assert changes["password"] not in answer.text

    async def test_the_least_length_is_a_setting(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Configure
    ) -> None:
        configure(PASSWORD_MIN_LENGTH=15)

        answer = await client.post(URL, json=body(password="fourteen chars"))
        assert answer.json()["errors"][0]["msg"] == "Use at least 15 characters."
        assert (await client.post(URL, json=body(password="fifteen of them"))).status_code == 201


class TestWhereVerificationIsRequired:
    async def answers(self, client: httpx.AsyncClient, *bodies: dict[str, Any]) -> list[tuple[int, Any]]:
        found = [await client.post(URL, json=item) for item in bodies]
        return [(answer.status_code, answer.json()) for answer in found]

    async def test_free_and_taken_get_one_answer(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Configure
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        await UserFactory.create(username="ann", email="ann@example.com")

        free, address, name, both = await self.answers(
            client,
            body(),
            body(email="ANN@example.com", username="other"),
            body(email="other@example.com", username="ANN"),
            body(email="ann@example.com", username="ann"),
        )

        assert free == address == name == both
        assert free[0] == 202

    async def test_each_mailbox_is_told(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        await UserFactory.create(username="ann", email="ann@example.com")
        await self.answers(
            client,
            body(),
            body(email="ANN@example.com", username="other"),
            body(email="third@example.com", username="ANN"),
        )

        await drain()

        assert len(captured_mail.messages()) == 3
        assert "#token=" in text_of(captured_mail.to("Bob@example.com")[0])
        assert "already has an account" in text_of(captured_mail.to("ann@example.com")[0])
        assert "not free" in text_of(captured_mail.to("third@example.com")[0])

    async def test_links_lead_where_the_settings_of_the_application_say(
        self,
        db: AsyncSession,
        app: FastAPI,
        client: httpx.AsyncClient,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        await UserFactory.create(email="ann@example.com")
        elsewhere = get_settings().model_copy(update={"FRONTEND_URL": "https://shop.example.com"})
        app.dependency_overrides[get_settings] = lambda: elsewhere
        try:
            await client.post(URL, json=body(email="ann@example.com"))
        finally:
            del app.dependency_overrides[get_settings]

        await drain()

        assert "https://shop.example.com/forgot-password" in text_of(captured_mail.to("ann@example.com")[0])

    async def test_the_account_can_be_used_once_verified(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        await self.answers(client, body())
        await drain()
        form = {"username": "Bob", "password": PASSWORD}
        assert (await client.post("/api/v1/auth/login", data=form)).status_code == 401

        token = captured_mail.token_for("Bob@example.com")
        await client.post("/api/v1/auth/verify-email", json={"token": token})

        assert (await client.post("/api/v1/auth/login", data=form)).status_code == 200


SPELLINGS = [
    "jörg@example.com",
    "JÖRG@EXAMPLE.COM",
    "jo\u0308rg@example.com",
    "\uff4aörg@example.com",
    "Jörg@Example.com",
]


class TestFiftyAtOnce:
    async def test_one_row_one_event_one_mail_and_clear_refusals(
        self, committed: Database, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        answers = await asyncio.gather(
            *(
                client.post(URL, json=body(email=SPELLINGS[number % 5], username=f"name{number}"))
                for number in range(50)
            )
        )

        codes = sorted(answer.status_code for answer in answers)
        assert codes == [201] + [409] * 49
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"email_taken"}
        async with committed.session_scope(read_only=True) as db:
            assert await db.scalar(select(func.count()).select_from(User)) == 1
            events = (await db.scalars(select(Job.payload).where(Job.task == "events.listen"))).all()
        assert len({str(event["event_id"]) for event in events}) == 1
        await drain()
        assert len(captured_mail.messages()) == 1
