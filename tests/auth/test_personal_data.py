"""Export and erasure of everything that is kept about a user, over all modules."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import PersonalDataExported
from app.auth.config import get_auth_config
from app.auth.exceptions import UserNotFound
from app.auth.models import AuthSession, OneTimeToken, RefreshToken, User, UserRole
from app.auth.services.erasure import erase_account, export_account, find_account
from app.auth.tasks import EraseUser
from app.core.db import Database, session_scope, utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.deps import queue_service
from app.core.runtime import runtime
from app.core.services.mail import mail_principal
from tests.auth.traces import (
    ADDRESS,
    AGENT,
    CANARIES,
    EMAIL,
    EXPORT,
    IDS,
    LATER_EMAIL,
    NAME,
    Drain,
    after,
    browsing,
    clock,
    contents,
    delete,
    greet,
    live,
    traces,
)
from tests.factories.user import PASSWORD_HASH, UserFactory
from tests.utils import PASSWORD, PublishedEvents, freeze, login_user


class Planted:
    """The answer of a module for a list of its own; the first `failures` erasures raise."""

    def __init__(self, rows: Mapping[int, list[str]], failures: int = 0) -> None:
        self.rows = dict(rows)
        self.failures = failures

    async def export(self, user_id: int, *, db: AsyncSession) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        for row in self.rows.get(user_id, []):
            yield "order", {"street": row, "at": utcnow()}

    async def erase(self, user_id: int, *, db: AsyncSession) -> None:
        self.rows.pop(user_id, None)
        if self.failures:
            self.failures -= 1
            raise OSError("the store of orders is away")


@contextmanager
def planted(name: str, answer: Planted, *, last: bool = False) -> Iterator[Planted]:
    """Have another module answer too, before the others or after them."""
    before = runtime().personal_data
    runtime().personal_data = {**before, name: answer} if last else {name: answer, **before}
    try:
        yield answer
    finally:
        runtime().personal_data = before


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose address and headers are nobody else's."""
    async with browsing(app) as http:
        yield http


class TestExport:
    async def test_everything_about_the_caller_over_all_modules(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        await greet(LATER_EMAIL)

        with planted("shop", Planted({user_id: ["Elm Street 1"], user_id + 1: ["Oak Road 2"]})):
            answer = await browser.get(EXPORT)

        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        found = answer.json()["data"]
        first, *_, auth, last = found
        assert (first, auth, last) == ("shop", "auth", "core"), "those first that depend on others"
        assert [order["order"]["street"] for order in found["shop"]] == ["Elm Street 1"]
        (account,) = [row["account"] for row in found["auth"] if "account" in row]
        assert (account["id"], account["email"], account["username"]) == (user_id, LATER_EMAIL, NAME)
        assert {kind for row in found["auth"] for kind in row} == {"account", "mail", "role", "session", "link"}
        assert all("data" in row["job"] for row in found["core"])
        earlier = [row for row in found["core"] if EMAIL in str(row) or "restore" in str(row)]
        assert earlier or any(row["link"]["email"] == EMAIL for row in found["auth"] if "link" in row)

    async def test_no_secret(self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain) -> None:
        user_id = await live(browser, drain)
        user = await db.get_one(User, user_id)
        user.security_stamp = 987_654_321
        await db.commit()
        secrets = [user.password_hash, "987654321", PASSWORD]
        for model, columns in {RefreshToken: ("token_hash", "salt"), OneTimeToken: ("token_hash",)}.items():
            for row in await db.scalars(select(model)):
                secrets += [getattr(row, column) for column in columns]
        assert len(secrets) > 5

        answer = (await browser.get(EXPORT)).text

        assert [secret for secret in secrets if secret in answer] == []
        assert "password_hash" not in answer

    async def test_mails_from_before_the_account_are_somebody_elses(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        """The address of a deleted account can be registered again."""
        user = await UserFactory.create()
        db.add(
            Job(
                task="core.mail.send",
                max_attempts=1,
                payload={"email_data": {}},
                principal=mail_principal(user.email),
                created_at=user.created_at - timedelta(days=1),
            )
        )
        await db.commit()
        await greet(user.email)
        await login_user(client, user)

        found = (await client.get(EXPORT)).json()["data"]
        assert len([row for row in found["auth"] if "mail" in row]) == 1

        await client.patch("/api/v1/profile", json={"email": "new@example.com", "current_password": PASSWORD})
        found = (await client.get(EXPORT)).json()["data"]["core"]
        assert len([row for row in found if row["job"]["data"].get("subject") == "Hello"]) == 1
        assert not [row for row in found if row["job"]["data"] == {"subject": None, "fields": None}]

    async def test_it_needs_a_session(self, db: AsyncSession, browser: httpx.AsyncClient) -> None:
        assert (await browser.get(EXPORT)).status_code == 401

    async def test_it_needs_a_recent_login_and_is_told(
        self, db: AsyncSession, client: httpx.AsyncClient, published_events: PublishedEvents
    ) -> None:
        """A stolen access token must not carry everything away."""
        user = await UserFactory.create()
        await login_user(client, user)
        assert (await client.get(EXPORT)).status_code == 200
        assert [event.user_id for event in published_events.of(PersonalDataExported)] == [user.id]

        session = (await db.scalars(select(AuthSession))).one()
        session.created_at = utcnow() - timedelta(minutes=16)
        await db.commit()
        refused = await client.get(EXPORT)
        assert (refused.status_code, refused.json()["code"]) == (403, "reauthentication_required")

    async def test_five_an_hour(self, db: AsyncSession, client: httpx.AsyncClient, limit: Callable[[], None]) -> None:
        await login_user(client, await UserFactory.create())
        limit()
        answers = [(await client.get(EXPORT)).status_code for _ in range(6)]
        assert answers == [200] * 5 + [429]

    async def test_an_operator_gets_the_same_of_a_deleted_account(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        await delete(browser)

        with await export_account(user_id) as file:
            found = json.load(file)["data"]

        assert found["auth"][0]["account"]["email"] == LATER_EMAIL
        assert found["auth"][0]["account"]["deleted_at"]


class TestErasure:
    async def test_nothing_of_the_user_is_left_in_any_table(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        late = {"task": "auth.send_email_change", "max_attempts": 1, "payload": {"user_id": user_id, "email": EMAIL}}
        db.add(Job(**late, principal=f"user:{user_id}", status=JobStatus.DEAD, finished_at=utcnow()))
        await db.commit()
        await greet(LATER_EMAIL)
        assert {line.partition(": ")[2] for line in await traces(db)} == set(CANARIES)
        await delete(browser)

        await after(drain, timedelta(days=30, minutes=1))

        assert await traces(db) == []
        # Jobs without personal data, that of the erasure itself among them, end with JOBS_KEEP_DAYS.
        assert set(await traces(db, *IDS)) <= {f"core_jobs: {name}" for name in IDS}
        user = await db.get_one(User, user_id)
        assert (user.email, user.username) == (f"erased-{user_id}@invalid", f"erased-{user_id}")
        assert user.password_hash == ""
        for model in (AuthSession, OneTimeToken, UserRole):
            assert await db.scalar(select(func.count()).where(model.user_id == user_id)) == 0

    async def test_not_before_its_time_but_jobs_at_once(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        await live(browser, drain)
        await delete(browser)

        await after(drain, timedelta(days=29))

        left = {line.partition(": ")[0] for line in await traces(db)}
        assert left - {"audit_events"} == {"auth_users", "auth_sessions", "auth_one_time_tokens"}

    async def test_at_once_where_the_setting_is_zero(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await live(browser, drain)
        monkeypatch.setenv("USER_ERASURE_DAYS", "0")
        get_auth_config.cache_clear()
        try:
            await delete(browser)
            await drain()
            assert await traces(db, EMAIL, AGENT) == []
            with freeze(timedelta(hours=1, minutes=1)):  # the delivery of the deletion itself has ended by then
                await drain()
            assert await traces(db) == []
        finally:
            get_auth_config.cache_clear()

    async def test_a_second_run_changes_nothing(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        await delete(browser)
        await after(drain, timedelta(days=31))
        jobs = ("core_jobs", "core_schedules", "sqlite_sequence")
        once = await contents(db, without=jobs)

        await erase_account(user_id)

        assert await contents(db, without=jobs) == once

    @pytest.mark.parametrize("last", [False, True])
    async def test_what_a_failing_module_interrupts_is_done_by_the_next_attempt(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain, last: bool
    ) -> None:
        user_id = await live(browser, drain)
        await delete(browser)
        await after(drain, timedelta())
        with planted("shop", Planted({user_id: [NAME]}, failures=1), last=last) as shop:
            with freeze(timedelta(days=31)):
                await clock(drain)
            waiting = select(Job.status).where(Job.task == EraseUser.__task_name__, Job.finished_at.is_(None))
            assert (await db.scalars(waiting)).all() == [JobStatus.FAILED]
            assert (await traces(db) == []) is last  # where it is last, only the jobs are left to do
            await after(drain, timedelta(days=31, minutes=10))

        assert (shop.rows, shop.failures) == ({}, 0)
        assert await traces(db) == []

    async def test_an_account_of_the_same_names_made_meanwhile_keeps_everything(
        self, db: AsyncSession, client: httpx.AsyncClient, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        old_id = await live(browser, drain)
        await delete(browser)
        await drain()
        with freeze(timedelta(days=31)):
            account = {"email": LATER_EMAIL, "username": NAME, "password": PASSWORD}
            new_id = (await client.post("/api/v1/auth/register", json=account)).json()["data"]["id"]
            waiting = select(func.count()).where(Job.finished_at.is_(None), Job.principal == f"user:{new_id}")
            assert await db.scalar(waiting)
            await erase_account(old_id)
            await drain()

            assert await traces(db, ADDRESS, AGENT) == []
            tokens = await client.post("/api/v1/auth/login", json={"username": NAME, "password": PASSWORD})
            client.headers["Authorization"] = f"Bearer {tokens.json()['access_token']}"
            await drain()
            profile = (await client.get("/api/v1/profile")).json()["data"]
            assert (profile["id"], profile["email"]) == (new_id, LATER_EMAIL)

    async def test_an_account_that_is_no_longer_deleted_is_left_alone(self, db: AsyncSession, drain: Drain) -> None:
        user = await UserFactory.create()
        async with session_scope():
            await (await queue_service()).push(task=EraseUser, data={"user_id": user.id})
        await drain()
        await db.refresh(user)
        assert user.password_hash == PASSWORD_HASH

    async def test_accounts_and_jobs_of_an_older_version_are_erased_too(self, db: AsyncSession, drain: Drain) -> None:
        deleted = [await UserFactory.create(deleted_at=utcnow() - timedelta(days=days)) for days in (40, 2)]
        job = {"task": "auth.erase_jobs", "max_attempts": 5}
        db.add_all([Job(**job, payload={"user_id": user.id}) for user in deleted])
        await db.commit()

        await clock(drain)

        for user in deleted:
            await db.refresh(user)
        assert [user.password_hash == "" for user in deleted] == [True, False]
        assert set(await db.scalars(select(Job.status).where(Job.task == "auth.erase_jobs"))) == {JobStatus.COMPLETED}

    async def test_a_login_at_the_same_moment_leaves_no_session(
        self, committed: Database, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        login = {"username": NAME, "password": PASSWORD}

        erasure = asyncio.create_task(erase_account(user_id))
        answers = await asyncio.gather(*(browser.post("/api/v1/auth/login", json=login) for _ in range(3)))
        await erasure

        assert {answer.status_code for answer in answers} <= {200, 401}
        assert (await browser.post("/api/v1/auth/login", json=login)).status_code == 401
        async with session_scope(read_only=True) as db:
            assert await db.scalar(select(func.count()).where(AuthSession.user_id == user_id)) == 0
        for hours in (0, 2, 4):
            with freeze(timedelta(hours=hours)):
                await drain()
        async with session_scope(read_only=True) as db:
            assert await traces(db, EMAIL, LATER_EMAIL, NAME) == []


class TestAccountOfAnOperator:
    async def test_by_address_name_and_id(self, db: AsyncSession) -> None:
        user, digits = await UserFactory.create(username="Ada"), await UserFactory.create(username="987654321")
        for login in (user.email.upper(), "ada", str(user.id)):
            assert (await find_account(login)).id == user.id
        assert (await find_account(digits.email)).id == digits.id
        for login in ("987654321", "٣", "0", "9" * 30, "nobody", "nobody@example.com", ""):
            with pytest.raises(UserNotFound):
                await find_account(login)

    async def test_a_deleted_one_where_that_is_wanted_by_its_id(self, db: AsyncSession) -> None:
        user = await UserFactory.create(deleted_at=utcnow())
        for login, wanted in ((user.username, True), (str(user.id), False)):
            with pytest.raises(UserNotFound):
                await find_account(login, with_deleted=wanted)
        assert (await find_account(str(user.id), with_deleted=True)).id == user.id
