"""Authority is checked when a thing takes effect: what was asked for before a remedy is void after it.

Intents are links: asked for and still queued (the worker stopped, the mail server away), or mailed already. Remedies
are what an owner, an administrator or an operator does against a thief.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.emails.templates import VerifyEmail
from app.auth.models import EndReason, User
from app.auth.repositories import SessionRepository, UserRepository
from app.auth.tasks import SendEmailChange, SendPasswordReset
from app.core.db import Database, utcnow
from app.core.db.jobs import Job
from app.core.runtime import runtime
from app.core.services.mail import BaseTemplate, EmailData, MailServiceInterface
from tests.auth.takeover import (
    INTENTS,
    REMEDIES,
    Address,
    Drain,
    Intent,
    Reset,
    Scenario,
    Step,
    build,
    complete_reset,
    disable_and_enable,
    get_reset_link,
    log_out_everywhere,
    set_verified,
)
from tests.utils import PASSWORD, CapturedMail

Configure = Callable[..., AuthConfig]


@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda step: step.__name__)
@pytest.mark.parametrize("intent", INTENTS, ids=lambda intent: type(intent).__name__)
async def test_a_remedy_voids_what_was_asked_for_before_it(
    db: AsyncSession,
    client: httpx.AsyncClient,
    drain: Drain,
    captured_mail: CapturedMail,
    configure: Configure,
    intent: Intent,
    remedy: Step,
) -> None:
    configure(USER_VERIFICATION_REQUIRED=intent.required)
    scenario = await build(db, client, drain, captured_mail, required=intent.required)
    await set_verified(scenario, intent.verified)
    mailbox = intent.mailbox(scenario)

    await intent.ask(scenario)
    await drain()
    assert len(scenario.links(mailbox)) == 1, "this one is mailed"
    await REMEDIES[remedy](scenario)
    mailed = scenario.links(mailbox)
    await intent.ask(scenario)  # and this one queued: nobody runs jobs now
    await remedy(scenario)
    await drain()

    assert scenario.links(mailbox) == mailed, "a job makes no link under an older stamp"
    before = (await scenario.row()).to_dict()
    assert [await intent.use(scenario, token) for token in mailed] == [422] * len(mailed)
    assert (await scenario.row()).to_dict() == before
    assert before["email"] == scenario.email
    await scenario.login() if before["is_verified"] or not intent.required else None

    await set_verified(scenario, intent.verified)
    await intent.ask(scenario)
    await drain()
    assert await intent.use(scenario, scenario.links(intent.mailbox(scenario))[-1]) == 204, (
        "what is asked for since counts"
    )


class Away(MailServiceInterface):
    """A mail server that refuses some recipients for now."""

    def __init__(self, mail: MailServiceInterface) -> None:
        self.mail = mail
        self.refuses: set[str] = set()
        self.refused: list[BaseTemplate] = []

    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        if self.refuses & set(email_data.recipients):
            self.refused.append(template)
            raise ConnectionError("451 try again later")
        await self.mail.send(template, email_data)

    async def queue(self, template: BaseTemplate, email_data: EmailData) -> None:
        await self.mail.queue(template, email_data)


@pytest.fixture
def server(app: FastAPI) -> Iterator[Away]:
    """The mail server of this test."""
    mail = runtime().mail
    runtime().mail = away = Away(mail)
    yield away
    runtime().mail = mail


async def make_due(database: Database) -> None:
    """Make every pending job due now."""
    async with database.session_scope() as session:
        await session.execute(update(Job).where(Job.finished_at.is_(None)).values(available_at=utcnow()))


class TestMailServerAway:
    async def test_a_link_that_waited_until_after_a_reset_is_never_made(
        self, committed: Database, scenario: Scenario, server: Away
    ) -> None:
        """The thief's own server says 451 until the owner has done what the notice says."""
        server.refuses = {"thief@example.com"}
        await Address().ask(scenario)
        await scenario.drain()
        (notice,) = scenario.texts(scenario.email)
        assert "asked to change the address of your account to thief@example.com" in notice
        (waiting,) = server.refused
        assert isinstance(waiting, VerifyEmail)

        await get_reset_link(scenario)
        await complete_reset(scenario)
        server.refuses = set()
        await make_due(committed)
        await scenario.drain()

        assert scenario.texts("thief@example.com") == []
        assert await Address().use(scenario, waiting.url.split("=")[1]) == 422
        await scenario.login()

    async def test_an_older_link_neither_follows_a_newer_one_nor_voids_it(
        self, committed: Database, scenario: Scenario, server: Away
    ) -> None:
        """The address with a typing error is tried for a day; the right one was asked for since."""
        server.refuses = {"thief@example.com"}
        await Address().ask(scenario)
        await scenario.drain()
        body: dict[str, Any] = {"email": "right@example.com", "current_password": PASSWORD}
        assert await scenario.send("PATCH", "/profile", await scenario.login(), **body) == 200
        await scenario.drain()
        server.refuses = set()
        await make_due(committed)
        await scenario.drain()

        assert scenario.texts("thief@example.com") == []
        assert await Address().use(scenario, scenario.links("right@example.com")[-1]) == 204


class TestAtOnce:
    async def test_of_a_reset_and_a_move_at_once_one_counts(self, committed: Database, scenario: Scenario) -> None:
        await Address().ask(scenario)
        await get_reset_link(scenario)
        (move,) = scenario.links("thief@example.com")

        codes = await asyncio.gather(Address().use(scenario, move), Reset().use(scenario, scenario.prepared))

        assert sorted(codes) == [204, 422]

    async def test_a_link_that_waits_for_a_remedy_is_void(self, committed: Database, scenario: Scenario) -> None:
        await Address().ask(scenario)
        await scenario.drain()
        async with committed.session_scope() as remedy:
            await UserRepository().raise_stamp(db=remedy, user_id=scenario.user_id)
            using = asyncio.create_task(Address().use(scenario, scenario.links("thief@example.com")[0]))
            await waits(remedy, using)

        assert await using == 422

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PATCH", "/profile", {"email": "thief@example.com"}),
            ("PATCH", "/profile", {"username": "thief"}),
            ("POST", "/profile/password", {"new_password": "the thief's own one"}),
            ("DELETE", "/profile", {}),
        ],
        ids=str,
    )
    async def test_a_change_that_waits_while_its_session_ends_is_refused(
        self, committed: Database, scenario: Scenario, method: str, path: str, body: dict[str, Any]
    ) -> None:
        headers = await scenario.login()
        given = body if "username" in body else {**body, "current_password": PASSWORD}
        async with committed.session_scope() as remedy:
            await UserRepository().raise_stamp(db=remedy, user_id=scenario.user_id)
            await SessionRepository().revoke(db=remedy, user_id=scenario.user_id, reason="logout")
            changing = asyncio.create_task(scenario.send(method, path, headers, **given))
            await waits(remedy, changing)

        assert await changing == 401
        await scenario.login()
        async with committed.session(read_only=True) as session:
            assert await session.scalar(select(Job.id).where(Job.task == SendEmailChange.__task_name__)) is None


async def waits(session: AsyncSession, task: "asyncio.Task[int]") -> None:
    """Until `task` waits for what `session` has locked. SQLite does not tell: there it may only be about to."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))")
    async with asyncio.timeout(30):
        while session.get_bind().dialect.name == "postgresql" and not await session.scalar(waiting):
            assert not task.done()
            await asyncio.sleep(0.01)


class TestEndedSession:
    @pytest.mark.parametrize("reason", ["revoked", "token_reused"])
    async def test_what_it_asked_for_is_void(self, committed: Database, scenario: Scenario, reason: EndReason) -> None:
        """The owner ends the thief's session in the list of sessions, or the thief's tokens end it."""
        await Address().ask(scenario)
        await scenario.drain()
        mailed = scenario.links("thief@example.com")
        await Address().ask(scenario)  # still queued
        async with committed.session_scope() as session:
            await SessionRepository().revoke(db=session, user_id=scenario.user_id, reason=reason)
        await scenario.drain()

        assert scenario.links("thief@example.com") == mailed
        assert [await Address().use(scenario, token) for token in mailed] == [422]

    async def test_ending_one_waits_for_a_link_in_use(self, committed: Database, scenario: Scenario) -> None:
        await Address().ask(scenario)
        headers = await scenario.login()
        rows = (await scenario.client.get("/api/v1/auth/sessions", headers=headers)).json()["data"]
        (asked,) = [row["id"] for row in rows if not row["is_current"]]
        async with committed.session_scope() as using:
            await UserRepository().get(db=using, for_update=True, id=scenario.user_id)
            ending = asyncio.create_task(scenario.send("DELETE", f"/auth/sessions/{asked}", headers))
            await waits(using, ending)
        assert await ending == 204

    async def test_who_logs_out_still_gets_the_link(self, db: AsyncSession, scenario: Scenario) -> None:
        await Address().ask(scenario)
        await SessionRepository().revoke(db=db, user_id=scenario.user_id, reason="logout")
        await db.commit()
        await scenario.drain()

        assert await Address().use(scenario, *scenario.links("thief@example.com")) == 204


class TestWelcome:
    async def test_a_link_comes_with_it_unless_a_remedy_came_since(self, db: AsyncSession, scenario: Scenario) -> None:
        for name, remedies in {"ann": 0, "bob": 1}.items():
            body: dict[str, Any] = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
            assert await scenario.send("POST", "/auth/register", **body) == 202
            scenario.user_id = (await db.scalars(select(User.id).where(User.username == name))).one()
            for _ in range(remedies):
                await disable_and_enable(scenario)
        await scenario.drain()

        assert [len(scenario.links(f"{name}@example.com")) for name in ("ann", "bob")] == [1, 0]
        assert len(scenario.texts("bob@example.com")) == 1


class TestStoredBefore:
    async def test_a_job_without_a_stamp_counts_unless_a_remedy_came_since(
        self, db: AsyncSession, scenario: Scenario
    ) -> None:
        asked = Job.task == SendPasswordReset.__task_name__
        for expected in (1, 1):
            await Reset().ask(scenario)
            unfinished = update(Job).where(asked, Job.finished_at.is_(None))
            await db.execute(unfinished.values(payload={"user_id": scenario.user_id}))
            await db.commit()
            await scenario.drain()
            assert len(scenario.links(scenario.email)) == expected
            await log_out_everywhere(scenario)
