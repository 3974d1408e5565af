"""Accounts that were not verified in time are deleted, and no others."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, TypeAlias

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig, get_auth_config
from app.auth.events import UserDeleted
from app.auth.models import User
from app.auth.repositories import UserRepository
from app.auth.tasks import DeleteUnverified
from app.core.db import Database, utcnow
from app.core.services.queue import call_with_dependencies
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, PublishedEvents, freeze, login_user

API = "/api/v1"
Configure: TypeAlias = Callable[..., AuthConfig]
Drain: TypeAlias = Callable[[], Awaitable[int]]

WEEK = timedelta(days=7)


@pytest.fixture(autouse=True)
def required(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Whether addresses must be verified, for requests and for tasks: at first they must."""

    def be(value: bool) -> None:
        configure(USER_VERIFICATION_REQUIRED=value)
        monkeypatch.setenv("USER_VERIFICATION_REQUIRED", str(value))
        get_auth_config.cache_clear()

    be(True)
    yield be
    monkeypatch.undo()
    get_auth_config.cache_clear()


async def register(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    body = {"email": "ann@example.com", "username": "ann", "password": PASSWORD, **changes}
    return await client.post(f"{API}/auth/register", json=body)


async def run(after: timedelta) -> None:
    """Run the task that much later."""
    with freeze(after):
        await call_with_dependencies(DeleteUnverified().run)


async def live(db: AsyncSession) -> int:
    return await db.scalar(select(func.count()).where(User.deleted_at.is_(None))) or 0


class TestOverdue:
    async def test_it_goes_after_a_week_and_its_address_and_name_are_free(
        self, db: AsyncSession, client: httpx.AsyncClient, published_events: PublishedEvents
    ) -> None:
        await register(client)
        await run(WEEK - timedelta(minutes=1))
        assert await live(db) == 1

        await run(WEEK + timedelta(minutes=1))

        assert await live(db) == 0
        (event,) = published_events.of(UserDeleted)
        assert (event.email, event.actor_id) == ("ann@example.com", None)
        await register(client)
        assert await db.scalar(select(User.username).where(User.deleted_at.is_(None))) == "ann"

    async def test_the_setting_of_the_day_it_registered_counts(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Configure
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True, USER_UNVERIFIED_KEEP_DAYS=30)
        await register(client)
        await run(WEEK * 2)
        assert await live(db) == 1
        await run(timedelta(days=31))
        assert await live(db) == 0

    async def test_many_go_in_batches(self, db: AsyncSession) -> None:
        overdue = utcnow() - timedelta(minutes=1)
        await UserFactory.create_batch(5, is_verified=False, verify_until=overdue)
        assert len(await UserRepository().lock_overdue(db=db, limit=2)) == 2
        await run(timedelta())
        assert await live(db) == 0

    async def test_its_link_is_of_no_use_any_more(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        await register(client)
        await drain()
        user = (await db.scalars(select(User))).one()
        user.verify_until = utcnow()
        await db.flush()
        await run(timedelta(minutes=1))

        link = {"token": captured_mail.token_for("ann@example.com")}
        assert (await client.post(f"{API}/auth/verify-email", json=link)).status_code == 422

    def test_it_runs_by_the_clock(self) -> None:
        assert DeleteUnverified.__schedule__ == "37 * * * *"


class TestOthers:
    async def test_one_that_was_verified_stays(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        await register(client)
        await drain()
        link = {"token": captured_mail.token_for("ann@example.com")}
        assert (await client.post(f"{API}/auth/verify-email", json=link)).status_code == 204
        await run(WEEK * 2)
        assert await live(db) == 1

    async def test_what_an_administrator_made_or_changed_stays(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        await login_user(client, await UserFactory.create(is_superuser=True))
        made = {"email": "made@example.com", "username": "made", "password": PASSWORD}
        assert (await client.post(f"{API}/users", json=made)).status_code == 201
        await register(client)
        user_id = await db.scalar(select(User.id).where(User.username == "ann"))
        for change in ({"is_verified": True}, {"is_verified": False}):
            assert (await client.patch(f"{API}/users/{user_id}", json=change)).status_code == 200

        await run(WEEK * 2)

        assert await live(db) == 3

    async def test_one_that_was_used_while_verification_was_off_stays(
        self, db: AsyncSession, client: httpx.AsyncClient, required: Callable[[bool], None]
    ) -> None:
        await register(client)
        required(False)
        answer = await client.post(f"{API}/auth/login", data={"username": "ann", "password": PASSWORD})
        assert answer.status_code == 200
        required(True)
        await run(WEEK * 2)
        assert await live(db) == 1

    async def test_none_goes_where_addresses_need_not_be_verified(
        self, db: AsyncSession, client: httpx.AsyncClient, required: Callable[[bool], None]
    ) -> None:
        await register(client)
        required(False)
        await run(WEEK * 2)
        assert await live(db) == 1

    async def test_superusers_and_accounts_of_earlier_versions_stay(self, db: AsyncSession) -> None:
        long_ago = utcnow() - WEEK
        await UserFactory.create(is_verified=False, created_at=long_ago)
        await UserFactory.create(is_verified=False, is_superuser=True, verify_until=long_ago)
        await run(timedelta())
        assert await live(db) == 2


class TestAtTheSameMoment:
    async def test_a_verification_wins_or_loses_whole(
        self, committed: Database, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        for number in range(4):
            await register(client, email=f"ann{number}@example.com", username=f"ann{number}")
        await drain()
        async with committed.session_scope() as db:
            for user in await db.scalars(select(User)):
                user.verify_until = utcnow()
        links = [{"token": captured_mail.token_for(f"ann{number}@example.com")} for number in range(4)]

        deleting = asyncio.create_task(call_with_dependencies(DeleteUnverified().run))
        answers = await asyncio.gather(*(client.post(f"{API}/auth/verify-email", json=link) for link in links))
        await deleting

        async with committed.session_scope(read_only=True) as db:
            rows = (await db.scalars(select(User).order_by(User.username))).all()
        kept = {204: (True, False), 422: (False, True)}
        assert [(row.is_verified, row.is_deleted) for row in rows] == [kept[answer.status_code] for answer in answers]

    async def test_one_that_is_being_verified_is_not_waited_for(self, committed: Database) -> None:
        user = await UserFactory.create(is_verified=False, verify_until=utcnow() - WEEK)
        if committed.engine.dialect.name != "postgresql":
            pytest.skip("SQLite has one writer")
        async with committed.session_scope() as db:
            locked = await UserRepository().require(db=db, for_update=True, id=user.id)
            async with asyncio.timeout(20):
                await call_with_dependencies(DeleteUnverified().run)
            locked.is_verified = True
        await call_with_dependencies(DeleteUnverified().run)
        async with committed.session_scope(read_only=True) as db:
            assert not (await UserRepository().require(db=db, id=user.id)).is_deleted
