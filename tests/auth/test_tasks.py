"""Tasks of auth, queued and scheduled."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.templates import Welcome
from app.auth.models import AuthSession, OneTimeToken, RefreshToken, User, UserStatus
from app.auth.tasks import PurgeExpiredTokens, SendEmailChange, SendPasswordReset, SendVerification
from app.core.db import session_scope, utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.deps import mail_service, queue_service
from app.core.services.events import Listen
from app.core.services.mail import EmailData
from app.core.services.queue import BaseTask, call_with_dependencies
from app.core.services.queue.execution import backoff
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, freeze, login_user

Drain = Callable[[], Awaitable[int]]


async def counts(db: AsyncSession) -> list[int | None]:
    return [
        await db.scalar(select(func.count()).select_from(model)) for model in (AuthSession, RefreshToken, OneTimeToken)
    ]


class TestErasure:
    async def holders(self, db: AsyncSession, text: str) -> list[tuple[str, str]]:
        """Task and status of the jobs whose payload holds `text`."""
        db.expire_all()
        rows = (await db.scalars(select(Job).order_by(Job.id))).all()
        return [(row.task, row.status.value) for row in rows if text in str(row.payload)]

    async def test_jobs_that_hold_data_of_a_deleted_user_go(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain
    ) -> None:
        people = {}
        for name in ("ann", "bob"):
            account = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
            people[name] = (await client.post("/api/v1/auth/register", json=account)).json()["data"]
            await (await mail_service()).queue(
                Welcome(project="Example", username=name, url=None),
                EmailData(subject="Hello", recipients=[f"{name.title()} <{name}@EXAMPLE.com>"]),
            )
        await drain()
        gone = f"user:{people['ann']['id']}"
        later = {"max_attempts": 3, "available_at": utcnow() + timedelta(hours=1), "task": "auth.send_email_change"}
        data = {"user_id": people["ann"]["id"], "email": "ann.new@example.com"}
        db.add(Job(**later, payload=data, principal=gone, status=JobStatus.DEAD, finished_at=utcnow()))
        db.add(Job(**later, payload=data, principal=gone, status=JobStatus.FAILED))
        await db.commit()
        kept = await self.holders(db, "bob@")
        assert len(await self.holders(db, "ann@")) == len(kept) > 1

        tokens = await client.post("/api/v1/auth/login", json={"username": "ann", "password": PASSWORD})
        client.headers["Authorization"] = f"Bearer {tokens.json()['access_token']}"
        answer = await client.request("DELETE", "/api/v1/profile", json={"current_password": PASSWORD})
        assert answer.status_code == 204
        await drain()

        assert await self.holders(db, "ann.new@") == [("auth.send_email_change", "failed")]  # it still has to run
        with freeze(timedelta(days=1, minutes=1)):
            await drain()  # what was left has run
        with freeze(timedelta(days=2, minutes=2)):
            await drain()
        assert await self.holders(db, "ann") == []
        assert await db.scalar(select(func.count()).where(Job.principal == gone)) == 0
        assert await db.scalar(select(func.count()).where(Job.finished_at.is_(None), Job.task.like("auth.%"))) == 0
        assert await self.holders(db, "bob@") == kept


class TestPurge:
    async def test_what_is_over_is_removed(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create()
        with freeze(timedelta(days=-31)):
            await login_user(client, user)
            await client.post("/api/v1/auth/restore-password", json={"email": user.email})
            await drain()
        await login_user(client, user)
        assert await counts(db) == [2, 2, 1]

        await call_with_dependencies(PurgeExpiredTokens().run)

        assert await counts(db) == [2, 1, 0], "sessions tell known devices for 90 days"
        assert (await client.get("/api/v1/profile")).status_code == 200

    async def test_it_runs_by_the_clock(self) -> None:
        assert PurgeExpiredTokens.__schedule__ == "17 3 * * *"


class TestWelcome:
    async def test_an_account_deleted_meanwhile_is_not_greeted(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        body = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}
        user_id = (await client.post("/api/v1/auth/register", json=body)).json()["data"]["id"]
        user = await db.get_one(User, user_id)
        user.deleted_at = user.created_at
        await db.commit()

        await drain()

        assert captured_mail.messages() == []


class TestPatience:
    @pytest.mark.parametrize("task", [SendPasswordReset, SendVerification, SendEmailChange, Listen])
    def test_a_mail_server_may_be_away_for_hours(self, task: type[BaseTask]) -> None:
        waited = sum((backoff(task, attempt) for attempt in range(1, task.max_attempts)), timedelta())
        assert waited > timedelta(hours=8)


class TestEmailChange:
    async def test_an_account_that_ended_meanwhile_gets_no_link(
        self, db: AsyncSession, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(status_id=UserStatus.DISABLED)
        async with session_scope():
            queue = await queue_service()
            await queue.push(task=SendEmailChange, data={"user_id": user.id, "email": "new@example.com"})

        await drain()

        assert captured_mail.messages() == []
        assert await counts(db) == [0, 0, 0]
