"""Export and erasure of everything that is kept about a user, over all modules."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.models import AuditEvent
from app.auth.config import get_auth_config
from app.auth.emails.templates import Welcome
from app.auth.exceptions import UserNotFound
from app.auth.models import AuthSession, OneTimeToken, RefreshToken, User, UserRole
from app.auth.services.erasure import erase_account, export_account, find_account
from app.auth.tasks import EraseDeletedUsers, EraseUser
from app.core.db import Database, session_scope, utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.deps import mail_service, queue_service
from app.core.runtime import runtime
from app.core.services.mail import EmailData
from tests.factories.user import PASSWORD_HASH, UserFactory
from tests.utils import PASSWORD, freeze, login_user

Drain = Callable[[], Awaitable[int]]

EMAIL, LATER_EMAIL, NAME = "canary.box@example.com", "canary.two@example.com", "canaryname"
ADDRESS, AGENT = "203.0.113.77", "CanaryAgent/1.0"
IDS = ("canary-request", "canary-talk")
CANARIES = (EMAIL, LATER_EMAIL, NAME, ADDRESS, AGENT)
EXPORT = "/api/v1/profile/export"


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
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(ADDRESS, 50000))
    headers = {"User-Agent": AGENT, "X-Request-ID": IDS[0], "X-Conversation-ID": IDS[1]}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
        yield http


async def live(http: httpx.AsyncClient, drain: Drain) -> int:
    """Register, and do what leaves traces everywhere; return the id."""
    account = {"email": EMAIL, "username": NAME, "password": PASSWORD}
    user_id: int = (await http.post("/api/v1/auth/register", json=account)).json()["data"]["id"]
    await http.post("/api/v1/auth/login", json={"username": NAME, "password": "wrong"})
    tokens = (await http.post("/api/v1/auth/login", json={"username": NAME, "password": PASSWORD})).json()
    http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    await http.post("/api/v1/auth/restore-password", json={"email": EMAIL})
    await drain()
    change = {"email": LATER_EMAIL, "current_password": PASSWORD}
    assert (await http.patch("/api/v1/profile", json=change)).status_code == 200
    await drain()
    return user_id


async def greet(email: str) -> None:
    """Queue a mail to the address."""
    template = Welcome(project="Example", username=NAME, url=None)
    await (await mail_service()).queue(template, EmailData(subject="Hello", recipients=[email]))


async def delete(http: httpx.AsyncClient) -> None:
    answer = await http.request("DELETE", "/api/v1/profile", json={"current_password": PASSWORD})
    assert answer.status_code == 204


async def clock(drain: Drain) -> None:
    """Run the scheduled task, and what it queues."""
    async with session_scope():
        await (await queue_service()).push(task=EraseDeletedUsers)
    await drain()


async def after(drain: Drain, time: timedelta) -> None:
    """Let the clock strike so much later, and again when what still had to run has run."""
    for extra in (0, 2, 4):
        with freeze(time + timedelta(hours=extra)):
            await clock(drain)


async def contents(db: AsyncSession, *, without: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Every row of every table of the database, as text."""
    db.expire_all()
    connection = await db.connection()
    tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    return {
        name: sorted(str(tuple(row)) for row in await db.execute(text(f'SELECT * FROM "{name}"')))
        for name in tables
        if name not in without
    }


async def traces(db: AsyncSession, *canaries: str) -> list[str]:
    """Which table holds which of these, in any column."""
    return [
        f"{table}: {canary}"
        for table, rows in (await contents(db)).items()
        for canary in canaries or CANARIES
        if any(canary.casefold() in row.casefold() for row in rows)
    ]


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
        assert {row["event"]["kind"] for row in found["audit"]} >= {"user_created", "login_failed", "login_succeeded"}
        assert {row["event"]["address"] for row in found["audit"]} == {ADDRESS}
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

    async def test_nothing_about_others(
        self, db: AsyncSession, client: httpx.AsyncClient, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        other = await UserFactory.create(username="somebodyelse")
        client.headers["User-Agent"] = "AdminAgent/1.0"
        await login_user(client, await UserFactory.create(is_superuser=True, username="theadmin"))
        assert (await client.patch(f"/api/v1/users/{user_id}", json={"username": "renamed"})).status_code == 200
        await client.patch(f"/api/v1/users/{other.id}", json={"username": "renamedtoo"})
        await drain()

        answer = await browser.get(EXPORT)

        assert "user_updated" in answer.text
        strangers = ("192.0.2.1", "AdminAgent", "theadmin", "somebodyelse", other.email, "renamedtoo")
        assert [name for name in strangers if name in answer.text] == []

    async def test_a_log_longer_than_one_page_is_whole(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        sample = (await db.scalars(select(AuditEvent).where(AuditEvent.actor_id == user_id))).first()
        assert sample is not None
        from uuid import uuid4

        values = sample.to_dict(exclude={"id", "event_id"}) | {"user_agent": "x" * 200}
        db.add_all([AuditEvent(**values, event_id=uuid4()) for _ in range(3000)])
        await db.commit()

        found = (await browser.get(EXPORT)).json()["data"]

        assert len(found["audit"]) > 3000

    async def test_it_needs_a_session(self, db: AsyncSession, browser: httpx.AsyncClient) -> None:
        assert (await browser.get(EXPORT)).status_code == 401

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
        kept = (await db.scalars(select(AuditEvent).where(AuditEvent.subject_id == user_id))).all()
        assert {event.kind for event in kept} >= {"user_created", "login_failed", "user_deleted"}
        assert {event.actor_id for event in kept} == {None, user_id}

    async def test_not_before_its_time_but_jobs_at_once(
        self, db: AsyncSession, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        await live(browser, drain)
        await delete(browser)

        await after(drain, timedelta(days=29))

        left = {line.partition(": ")[0] for line in await traces(db)}
        assert left == {"auth_users", "auth_sessions", "auth_one_time_tokens", "audit_events"}

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
            kinds = await db.scalars(select(AuditEvent.kind).where(AuditEvent.subject_id == new_id))
            assert set(kinds) == {"user_created", "login_succeeded"}
            clients = await db.scalars(select(AuditEvent.address).where(AuditEvent.subject_id == new_id))
            assert set(clients) == {"192.0.2.1"}

    async def test_what_an_administrator_did_keeps_from_where_and_loses_what(
        self, db: AsyncSession, client: httpx.AsyncClient, browser: httpx.AsyncClient, drain: Drain
    ) -> None:
        user_id = await live(browser, drain)
        admin = await UserFactory.create(is_superuser=True)
        await login_user(client, admin)
        await client.patch(f"/api/v1/users/{user_id}", json={"username": "renamed"})
        await client.delete(f"/api/v1/users/{user_id}")
        await after(drain, timedelta(days=31))

        by_admin = (AuditEvent.subject_id == user_id, AuditEvent.actor_id == admin.id)
        kept = (await db.scalars(select(AuditEvent).where(*by_admin))).all()
        assert [(event.address, event.details) for event in kept] == [("192.0.2.1", {})] * 2
        assert await traces(db) == []

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
