"""Mailed links: new passwords and verified addresses."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import OneTimeToken, User, UserStatus
from app.auth.repositories import UserRepository
from app.auth.security.tokens import new_token, token_hash
from app.core.db import Database, utcnow
from app.core.db.jobs import Job
from tests.auth.mails import text_of
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, freeze, login_user

Drain = Callable[[], Awaitable[int]]

NEW_PASSWORD = "another good one"
RESTORE = "/api/v1/auth/restore-password"
RESET = "/api/v1/auth/reset-password"
VERIFY = "/api/v1/auth/verify-email"
RESEND = "/api/v1/auth/resend-verification"


async def mailed_token(
    client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail, email: str, url: str = RESTORE
) -> str:
    assert (await client.post(url, json={"email": email})).status_code == 202
    await drain()
    return captured_mail.token_for(email)


async def reset(client: httpx.AsyncClient, token: str, password: str = NEW_PASSWORD) -> httpx.Response:
    return await client.post(RESET, json={"token": token, "new_password": password})


async def may_log_in(client: httpx.AsyncClient, user: User, password: str) -> bool:
    data = {"username": user.username, "password": password}
    return (await client.post("/api/v1/auth/login", data=data)).status_code == 200


class TestRestore:
    async def test_the_mail_goes_to_the_stored_spelling(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        await UserFactory.create(email="Ann@example.com")

        await client.post(RESTORE, json={"email": "\uff21NN@EXAMPLE.com"})
        await drain()

        (mail,) = captured_mail.messages()
        assert mail["To"] == "Ann@example.com"
        assert "http://localhost:3000/reset-password#token=" in text_of(mail)
        html = mail.get_body(("html",))
        assert html is not None
        assert '<a href="http://localhost:3000/reset-password#token=' in html.get_content()

    async def test_a_host_header_does_not_end_up_in_the_link(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()

        await client.post(
            RESTORE, json={"email": user.email}, headers={"Host": "evil.example.com", "X-Forwarded-Host": "evil"}
        )
        await drain()

        assert "evil" not in captured_mail.to(user.email)[0].as_string()

    async def test_known_and_unknown_are_told_and_do_the_same(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        disabled = await UserFactory.create(status_id=UserStatus.DISABLED)
        deleted = await UserFactory.create(deleted_at=utcnow())

        answers = []
        for email in (user.email, disabled.email, deleted.email, "nobody@example.com"):
            answers.append(await client.post(RESTORE, json={"email": email}))

        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.content for answer in answers}) == 1
        tasks = (await db.scalars(select(Job.task).where(Job.task != "events.listen"))).all()
        assert tasks == ["auth.send_password_reset"] * 4
        await drain()
        assert [mail["To"] for mail in captured_mail.messages()] == [user.email]

    async def test_no_row_holds_the_token(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        token = await mailed_token(client, drain, captured_mail, user.email)

        jobs = [job.to_dict() for job in await db.scalars(select(Job))]
        tokens = [row.to_dict() for row in await db.scalars(select(OneTimeToken))]
        assert jobs
        assert tokens
        assert token not in str(jobs) + str(tokens)

    @pytest.mark.parametrize("body", [{}, {"email": ""}, {"email": "nobody"}, {"email": "a@b.example.com\0"}])
    async def test_what_is_no_address_is_a_422(
        self, db: AsyncSession, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> None:
        assert (await client.post(RESTORE, json=body)).status_code == 422

    async def test_it_is_limited(self, db: AsyncSession, client: httpx.AsyncClient, limit: Callable[[], None]) -> None:
        limit()
        codes = [(await client.post(RESTORE, json={"email": "a@example.com"})).status_code for _ in range(6)]

        assert codes == [202] * 5 + [429]


class TestReset:
    async def test_the_new_password_counts_and_every_session_ends(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(is_verified=False)
        tokens = await login_user(client, user)
        token = await mailed_token(client, drain, captured_mail, user.email)

        answer = await reset(client, token)

        assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get("/api/v1/profile")).status_code == 401
        refreshed = await client.post("/api/v1/auth/refresh-token", json={"refresh_token": tokens["refresh_token"]})
        assert refreshed.status_code == 401
        assert not await may_log_in(client, user, PASSWORD)
        assert await may_log_in(client, user, NEW_PASSWORD)
        assert await db.scalar(select(User.is_verified).where(User.id == user.id)), "who has the mail has the address"

    async def test_a_token_works_once(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        token = await mailed_token(client, drain, captured_mail, user.email)
        await reset(client, token)

        again = await reset(client, token, "a third password")

        assert again.status_code == 422
        assert again.json()["errors"][0]["loc"] == ["body", "token"]
        assert await may_log_in(client, user, NEW_PASSWORD)

    async def test_a_new_link_makes_the_older_ones_useless(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        first = await mailed_token(client, drain, captured_mail, user.email)
        second = await mailed_token(client, drain, captured_mail, user.email)

        assert (await reset(client, first)).status_code == 422
        assert (await reset(client, second)).status_code == 204

    async def test_a_refused_password_leaves_the_link_good(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(username="hopper")
        token = await mailed_token(client, drain, captured_mail, user.email)

        for password, kind in (("short one", "password_too_short"), ("Grace Hopper 1906", "password_contains_name")):
            answer = await reset(client, token, password)
            assert (answer.status_code, answer.json()["code"]) == (422, "weak_password")
            (fault,) = answer.json()["errors"]
            assert (fault["loc"], fault["type"]) == (["body", "new_password"], kind)
            assert password not in answer.text
        assert (await reset(client, token)).status_code == 204

    async def test_it_expires(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        token = await mailed_token(client, drain, captured_mail, user.email)

        with freeze(timedelta(minutes=16)):
            assert (await reset(client, token)).status_code == 422
        with freeze(timedelta(minutes=14)):
            assert (await reset(client, token)).status_code == 204

    async def test_a_token_for_something_else_does_not_work(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(is_verified=False)
        verification = await mailed_token(client, drain, captured_mail, user.email, RESEND)
        restore = await mailed_token(client, drain, captured_mail, user.email)

        assert (await reset(client, verification)).status_code == 422
        assert (await client.post(VERIFY, json={"token": restore})).status_code == 422

    @pytest.mark.parametrize("values", [{"status_id": UserStatus.DISABLED}, {"deleted_at": utcnow()}])
    async def test_not_for_an_account_that_ended_since(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        drain: Drain,
        captured_mail: CapturedMail,
        values: dict[str, Any],
    ) -> None:
        user = await UserFactory.create()
        token = await mailed_token(client, drain, captured_mail, user.email)
        user.update(**values)
        await db.commit()

        assert (await reset(client, token)).status_code == 422

    async def test_not_once_the_address_has_changed(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        token = await mailed_token(client, drain, captured_mail, user.email)
        await UserRepository().change(db=db, user=user, email="new@example.com")
        await db.commit()

        assert (await reset(client, token)).status_code == 422

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"token": "x"},
            {"token": "", "new_password": NEW_PASSWORD},
            {"token": "x" * 257, "new_password": NEW_PASSWORD},
            {"token": "x", "new_password": "short"},
            {"token": "x", "new_password": ""},
            {"token": "x", "new_password": "x" * 257},
            {"token": "unknown", "new_password": NEW_PASSWORD},
            {"token": "nul\0nul", "new_password": NEW_PASSWORD},
            {"token": "x", "new_password": NEW_PASSWORD, "email": "a@example.com"},
        ],
        ids=str,
    )
    async def test_hostile_bodies(self, db: AsyncSession, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        answer = await client.post(RESET, json=body)

        assert answer.status_code == 422
        assert NEW_PASSWORD not in answer.text

    async def test_of_twenty_at_once_one_succeeds(
        self, committed: Database, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        token = await mailed_token(client, drain, captured_mail, user.email)

        answers = await asyncio.gather(*(reset(client, token, f"password number {n}") for n in range(20)))

        codes = [answer.status_code for answer in answers]
        assert sorted(codes) == [204] + [422] * 19
        assert await may_log_in(client, user, f"password number {codes.index(204)}")


class TestVerify:
    async def test_it_verifies_once(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(is_verified=False)
        token = await mailed_token(client, drain, captured_mail, user.email, RESEND)

        assert (await client.post(VERIFY, json={"token": token})).status_code == 204
        assert await db.scalar(select(User.is_verified).where(User.id == user.id))
        assert (await client.post(VERIFY, json={"token": token})).status_code == 422

    async def test_it_expires(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(is_verified=False)
        token = await mailed_token(client, drain, captured_mail, user.email, RESEND)

        with freeze(timedelta(hours=25)):
            assert (await client.post(VERIFY, json={"token": token})).status_code == 422

    async def test_a_mail_is_sent_again_only_to_who_needs_it(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        verified, waiting = await UserFactory.create(), await UserFactory.create(is_verified=False)

        answers = [
            await client.post(RESEND, json={"email": email})
            for email in (verified.email, waiting.email, "nobody@example.com")
        ]

        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.content for answer in answers}) == 1
        await drain()
        assert [mail["To"] for mail in captured_mail.messages()] == [waiting.email]

    async def test_of_several_new_addresses_at_once_one_succeeds(
        self, committed: Database, client: httpx.AsyncClient
    ) -> None:
        """Each link makes the others useless, so they must not wait for one another."""
        user = await UserFactory.create()
        tokens = [new_token() for _ in range(8)]
        async with committed.session_scope() as session:
            session.add_all(
                OneTimeToken(
                    user_id=user.id,
                    purpose="change_email",
                    token_hash=token_hash(token),
                    email=f"{number}@new.example.com",
                    expires_at=utcnow() + timedelta(hours=1),
                )
                for number, token in enumerate(tokens)
            )

        answers = await asyncio.gather(*(client.post(VERIFY, json={"token": token}) for token in tokens * 2))

        assert sorted(answer.status_code for answer in answers) == [204] + [422] * 15
