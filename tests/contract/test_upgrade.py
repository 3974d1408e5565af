"""What the version before has stored is run and honoured after `kit migrate`.

`stored/` holds the rows of a database that the code of commit f2b24e4 filled, one file for each database.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.engine import URL

from app.auth.models import User
from app.core.db import Database, utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.migrations.env import sync_url
from app.core.migrations.migrate import Migrations
from app.core.runtime import runtime
from app.core.services.queue.store import retry_dead_jobs
from tests.conftest import backend
from tests.utils import PASSWORD, CapturedMail, freeze

Drain = Callable[[], Awaitable[int]]

HEAD_THEN = "6ba34f193aae"
LAST_JOB = 71
DIALECT = URL.create("postgresql+psycopg") if "served" in backend.name else URL.create("sqlite")
STORED = (Path(__file__).parent / "stored" / f"f2b24e4.{DIALECT.get_backend_name()}.sql").read_text(encoding="utf-8")
SECRETS = dict(re.findall(r"^-- (\w+) = (.+)$", STORED, re.MULTILINE))


@pytest.fixture(scope="module")
def upgraded() -> Iterator[URL]:
    """A database of the version before, with its rows, brought up to date."""
    url = backend.empty()
    Migrations(url).upgrade(HEAD_THEN, timeline="shared")
    engine = sa.create_engine(sync_url(url), poolclass=sa.NullPool)
    connection = engine.raw_connection()
    driver = connection.driver_connection
    assert driver is not None
    (driver.executescript if DIALECT.get_backend_name() == "sqlite" else driver.execute)(STORED)
    connection.commit()
    connection.close()
    Migrations(url).upgrade()
    yield url
    backend.drop(url)


@pytest.fixture
async def stored(app: FastAPI, upgraded: URL) -> AsyncIterator[Database]:
    """That database in place of the application's."""
    original = runtime().database
    database = runtime().database = Database.connect(upgraded)
    yield database
    runtime().database = original
    await database.close()


@pytest.fixture
async def browser(stored: Database, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose requests reach that database."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1") as http:
        yield http


async def refresh(browser: httpx.AsyncClient, token: str) -> httpx.Response:
    return await browser.post("/auth/refresh-token", json={"refresh_token": token})


class TestSessions:
    async def test_an_access_token_is_good_until_it_expires(self, browser: httpx.AsyncClient) -> None:
        with freeze(datetime.fromisoformat(SECRETS["ann_access_at"]) + timedelta(minutes=1)):
            answer = await browser.get("/profile", headers={"Authorization": f"Bearer {SECRETS['ann_access']}"})
        assert answer.json()["data"]["username"] == "ann", answer.text

    async def test_a_refresh_token_is_exchanged(self, browser: httpx.AsyncClient) -> None:
        answer = await refresh(browser, SECRETS["ann_refresh"])
        assert answer.status_code == 200, answer.text
        me = await browser.get("/profile", headers={"Authorization": f"Bearer {answer.json()['access_token']}"})
        assert me.json()["data"]["username"] == "ann"

    async def test_a_refresh_token_used_before_ends_its_session(self, browser: httpx.AsyncClient) -> None:
        assert (await refresh(browser, SECRETS["ben_spent"])).status_code == 401
        assert (await refresh(browser, SECRETS["ben_refresh"])).status_code == 401

    @pytest.mark.parametrize(("username", "status"), [("gil", 200), ("ida", 401), ("joe", 401)])
    async def test_passwords_and_the_state_of_accounts_hold(
        self, browser: httpx.AsyncClient, username: str, status: int
    ) -> None:
        answer = await browser.post("/auth/login", data={"username": username, "password": PASSWORD})
        assert answer.status_code == status, answer.text


class TestLinks:
    async def test_a_mailed_reset_sets_a_password(self, browser: httpx.AsyncClient) -> None:
        body = {"token": SECRETS["cat_reset"], "new_password": "another long password"}
        assert (await browser.post("/auth/reset-password", json=body)).status_code == 204
        answer = await browser.post("/auth/login", data={"username": "cat", "password": body["new_password"]})
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("token", "address"), [("dan_verify", "dan@example.com"), ("eve_change", "eve.new@example.com")]
    )
    async def test_a_mailed_verification_makes_the_address_the_accounts(
        self, browser: httpx.AsyncClient, stored: Database, token: str, address: str
    ) -> None:
        assert (await browser.post("/auth/verify-email", json={"token": SECRETS[token]})).status_code == 204
        async with stored.session() as db:
            user = (await db.scalars(sa.select(User).where(User.email_key == address))).one()
        assert user.is_verified


class TestJobs:
    async def test_queued_mails_have_the_name_that_no_fork_uses(self, stored: Database) -> None:
        async with stored.session() as db:
            names = set(await db.scalars(sa.select(Job.task).where(Job.id <= LAST_JOB)))
        assert "core.mail.send" in names
        assert "mail.send" not in names

    async def test_every_pending_one_is_run(
        self, browser: httpx.AsyncClient, stored: Database, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        async with stored.session() as db:
            unfinished = sa.select(Job.id, Job.payload).where(Job.id <= LAST_JOB, Job.finished_at.is_(None))
            waiting = {row.id: row.payload for row in await db.execute(unfinished)}
        assert len(waiting) == 36

        await drain()
        async with stored.session_scope() as db:  # what the clock asked for, and what had been given up
            await db.execute(sa.update(Job).where(Job.finished_at.is_(None)).values(available_at=utcnow()))
            given_up = await retry_dead_jobs(db=db)
        await drain()

        async with stored.session() as db:
            ended = await db.execute(
                sa.select(Job.id, Job.status, Job.last_error).where(Job.id.in_([*waiting, *given_up]))
            )
            assert [row for row in ended if row.status is not JobStatus.COMPLETED] == []
        mails = {str(mail["Delivered-To"]): str(mail["Subject"]) for mail in captured_mail.messages()}
        assert mails.keys() >= {
            *(f"{name}@example.com" for name in ("one", "two", "three", "four", "five", "six", "seven", "eight")),
            *("fay@example.com", "gil@example.com", "hal@example.com", "hal.new@example.com", "kim@example.com"),
        }
        (shared,) = captured_mail.to("five@example.com")
        assert (shared["To"], shared["Cc"]) == ("three@example.com", "four@example.com")
        assert [part.get_content() for part in shared.iter_attachments()] == ["attached"]

        for path, body in {
            "/auth/reset-password": {
                "token": captured_mail.token_for("fay@example.com"),
                "new_password": "a new long password",
            },
            "/auth/verify-email": {"token": captured_mail.token_for("hal.new@example.com")},
        }.items():
            assert (await browser.post(path, json=body)).status_code == 204

        heard = {data["event"] for data in waiting.values() if data.get("listener", "").startswith("app.audit.")}
        login = await browser.post("/auth/login", data={"username": "admin", "password": "only for this test"})
        browser.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
        kept = (await browser.get("/audit/events?per_page=100&sort=id:desc")).json()["data"]
        assert {event["kind"] for event in kept if event["conversation_id"] == "talk-1"} == heard - {"user_created"}
