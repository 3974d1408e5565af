"""Keeping events once, naming their users at once, forgetting them in time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.listeners import record
from app.audit.models import AuditEvent, Outcome
from app.audit.repositories import AuditEventRepository
from app.audit.schemas import AuditEventListParams
from app.audit.services import AuditService
from app.audit.tasks import PurgeExpiredEvents
from app.auth import AuthGatewayInterface, LoginFailed, UserCreated, UserDeleted, UserDTO, get_gateway
from app.core.db import Database, ListParams, PaginatedResult, utcnow
from app.core.deps import queue_service
from app.core.services.events import ListenedEvent
from tests.factories.audit_event import AuditEventFactory
from tests.factories.user import UserFactory

Drain = Callable[[], Awaitable[int]]


class CountingGateway(AuthGatewayInterface):
    """Knows nobody, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    async def get_user(self, user_id: int) -> UserDTO | None:
        return next(iter(await self.get_users([user_id])), None)

    async def get_users(self, user_ids: Sequence[int]) -> list[UserDTO]:
        self.asked.append(list(user_ids))
        return []

    async def get_user_list(self, params: ListParams) -> PaginatedResult[UserDTO]:
        raise NotImplementedError


def failed_login(user_id: int | None = 3) -> ListenedEvent[LoginFailed]:
    """An event as a listener receives it."""
    return ListenedEvent(
        name="login_failed",
        data=LoginFailed(user_id=user_id, reason="wrong_password"),
        id=uuid4(),
        attempt=1,
        occurred_at=utcnow() - timedelta(minutes=5),
    )


class TestRecord:
    async def test_the_same_event_five_times_is_one_row(self, db: AsyncSession) -> None:
        heard = failed_login()

        for _ in range(5):
            await record(heard)

        row = (await db.scalars(select(AuditEvent))).one()
        assert (row.event_id, row.kind, row.outcome) == (heard.id, "login_failed", Outcome.FAILURE)
        assert (row.actor_id, row.subject_id, row.details) == (None, 3, {"reason": "wrong_password"})
        assert row.occurred_at == heard.occurred_at

    @pytest.mark.parametrize("kind", [UserCreated, UserDeleted])
    async def test_who_it_was_is_no_detail(self, db: AsyncSession, kind: Any) -> None:
        """An event is kept for a year; names are asked of the gateway, which forgets who is deleted."""
        await record(ListenedEvent(kind.__event_name__, kind(id=3, email="ann@example.com", username="ann")))

        row = (await db.scalars(select(AuditEvent))).one()
        assert (row.subject_id, row.details) == (3, {})

    async def test_five_times_at_once_too(self, committed: Database) -> None:
        heard = failed_login()

        await asyncio.gather(*(record(heard) for _ in range(5)))

        async with committed.session_scope(read_only=True) as db:
            assert await db.scalar(select(func.count()).select_from(AuditEvent)) == 1

    async def test_two_events_that_say_the_same_are_two_rows(self, db: AsyncSession) -> None:
        await record(failed_login())
        await record(failed_login())

        assert await db.scalar(select(func.count()).select_from(AuditEvent)) == 2


class TestNames:
    async def test_the_users_of_a_page_are_asked_for_once(self, db: AsyncSession) -> None:
        for subject_id, actor_id in ((5, 9), (5, 5), (7, None), (None, None)):
            await AuditEventFactory.create(subject_id=subject_id, actor_id=actor_id)
        gateway = CountingGateway()
        service = AuditService(events=AuditEventRepository(), gateway=gateway)

        page = await service.get_list(AuditEventListParams(), db=db)

        assert len(page.items) == 4
        assert gateway.asked == [[5, 7, 9]]

    async def test_nobody_is_not_asked_for(self, db: AsyncSession) -> None:
        gateway = CountingGateway()
        service = AuditService(events=AuditEventRepository(), gateway=gateway)

        await service.get_list(AuditEventListParams(), db=db)

        assert gateway.asked == []

    @pytest.mark.parametrize("rows", [1, 50])
    async def test_a_page_is_three_statements_however_long(self, committed: Database, rows: int) -> None:
        for user in await UserFactory.create_batch(rows):
            await AuditEventFactory.create(subject_id=user.id)
        service = AuditService(events=AuditEventRepository(), gateway=await get_gateway())
        statements: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            statements.append(statement)

        engine = committed.engine.sync_engine
        async with committed.session_scope(read_only=True) as db:
            await db.execute(select(1))  # what the driver says to a new connection does not count
            event.listen(engine, "before_cursor_execute", note)
            try:
                await service.get_list(AuditEventListParams(per_page=100), db=db)
            finally:
                event.remove(engine, "before_cursor_execute", note)

        assert len(statements) == 3, statements


class TestPurge:
    async def test_only_what_is_old_goes_in_as_many_batches_as_it_takes(self, db: AsyncSession) -> None:
        for days in (40, 31, 33, 29, 32, 0):
            await AuditEventFactory.create(occurred_at=utcnow() - timedelta(days=days))
        service = AuditService(events=AuditEventRepository(), gateway=CountingGateway())

        assert await service.purge(timedelta(days=30), db=db, batch=3) == 4

        assert await db.scalar(select(func.count()).select_from(AuditEvent)) == 2
        assert await service.purge(timedelta(days=30), db=db, batch=3) == 0

    async def test_the_task_keeps_a_year_by_default(self, db: AsyncSession, drain: Drain) -> None:
        for days in (366, 364):
            await AuditEventFactory.create(occurred_at=utcnow() - timedelta(days=days))

        await (await queue_service()).push(task=PurgeExpiredEvents)
        await drain()

        kept = (await db.scalars(select(AuditEvent))).one()
        assert kept.occurred_at > utcnow() - timedelta(days=365)
