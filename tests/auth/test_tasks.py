"""What runs after a commit, or by the clock."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import AuthSession, OneTimeToken, RefreshToken, User, UserStatus
from app.auth.tasks import PurgeExpired, SendEmailChange, SendPasswordReset, SendVerification
from app.core.db import session_scope
from app.core.deps import queue_service
from app.core.services.events import Listen
from app.core.services.queue import BaseTask, call_with_dependencies
from app.core.services.queue.execution import backoff
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, freeze, login_user

Drain = Callable[[], Awaitable[int]]


async def counts(db: AsyncSession) -> list[int | None]:
    return [
        await db.scalar(select(func.count()).select_from(model)) for model in (AuthSession, RefreshToken, OneTimeToken)
    ]


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

        await call_with_dependencies(PurgeExpired().run)

        assert await counts(db) == [1, 1, 0]
        assert (await client.get("/api/v1/profile")).status_code == 200

    async def test_it_runs_by_the_clock(self) -> None:
        assert PurgeExpired.__schedule__ == "17 3 * * *"


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
