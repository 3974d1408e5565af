"""Listeners that fail, for a while or for ever, and one that hears the same event again and again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter
from sqlalchemy import MetaData, select, update
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BaseModel, insert_unless_taken, session_scope, utcnow
from app.core.db.base import NAMING_CONVENTION
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.deps import DBSession, EventsService, listener
from app.core.services.events import BaseEvent, Listen, ListenedEvent
from app.main import create_app

Drain = Callable[[], Awaitable[int]]


class Sale(BaseModel):
    """What the idempotent listener of docs/events.md leaves: one row an event."""

    __tablename__ = "faults_sales"
    metadata = MetaData(naming_convention=NAMING_CONVENTION)

    event_id: Mapped[UUID] = mapped_column(unique=True)
    total: Mapped[int]


class Ordered(BaseEvent):
    total: int


@listener(Ordered)
async def book(event: ListenedEvent[Ordered], db: DBSession) -> None:
    values = {"event_id": event.id, "total": event.data.total}
    await insert_unless_taken(db, Sale, values, unique=("event_id",))


@listener(Ordered)
async def stumble(event: ListenedEvent[Ordered], db: DBSession) -> None:
    if event.attempt <= 3:
        raise ConnectionError(f"fall {event.attempt}")


@listener(Ordered)
async def collapse(event: ListenedEvent[Ordered], db: DBSession) -> None:
    raise LookupError("never")


router = APIRouter()


@router.post("/orders", status_code=201)
async def order(total: int, db: DBSession, events: EventsService) -> int:
    events.dispatch(Ordered(total=total))
    return total


@pytest.fixture
async def shop(committed: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with a route that takes orders."""
    async with committed.engine.begin() as connection:
        await connection.run_sync(Sale.metadata.create_all)
    application = create_app(run_jobs=False)
    application.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as client:
        yield client


async def deliveries() -> dict[str, Job]:
    """The newest run of each listener."""
    async with session_scope(read_only=True) as db:
        found = await db.scalars(select(Job).where(Job.task == "events.listen").order_by(Job.id))
        return {job.payload["listener"].rpartition(":")[2]: job for job in found}


async def sales() -> list[int]:
    async with session_scope(read_only=True) as db:
        return list(await db.scalars(select(Sale.total).order_by(Sale.id)))


async def test_one_fails_for_a_while_one_for_ever_and_neither_harms_anybody(
    shop: httpx.AsyncClient, drain: Drain
) -> None:
    answer = await shop.post("/orders", params={"total": 7})
    assert answer.status_code == 201

    for _ in range(Listen.max_attempts):
        assert await drain()
        async with session_scope() as db:  # the pauses between the attempts are over
            await db.execute(update(Job).where(Job.finished_at.is_(None)).values(available_at=utcnow()))
    assert await drain() == 0

    runs = await deliveries()
    assert {name: (job.status, job.attempts) for name, job in runs.items()} == {
        "book": (JobStatus.COMPLETED, 1),
        "stumble": (JobStatus.COMPLETED, 4),
        "collapse": (JobStatus.DEAD, Listen.max_attempts),
    }
    assert runs["collapse"].last_error == "LookupError: never"
    assert await sales() == [7]

    assert (await shop.post("/orders", params={"total": 8})).status_code == 201
    await drain()
    assert await sales() == [7, 8]


async def test_the_documented_idempotent_listener_has_one_effect_however_often_it_hears_the_event(
    shop: httpx.AsyncClient, drain: Drain
) -> None:
    await shop.post("/orders", params={"total": 7})
    await drain()
    for _ in range(4):  # what a process leaves that dies after the effect and before the outcome is stored
        async with session_scope() as db:
            again = update(Job).where(Job.status == JobStatus.COMPLETED)
            await db.execute(again.values(status=JobStatus.PENDING, finished_at=None, available_at=utcnow()))
        assert await drain()
    assert (await deliveries())["book"].attempts == 5
    assert await sales() == [7]
