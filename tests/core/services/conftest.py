"""Fixtures of the tests of jobs, events, queue, mail and cache."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI
from sqlalchemy import event, select, update

from app.core.db.base import utcnow
from app.core.db.jobs import Job
from app.core.runtime import Runtime, runtime
from app.core.services.queue import JobRunner
from app.core.services.queue.limits import Queues
from tests.core.services.stage import Stage, stage

T = TypeVar("T")


@pytest.fixture
def scene() -> Iterator[Stage]:
    """The empty stage."""
    stage.entries.clear()
    stage.scenes.clear()
    yield stage
    stage.scenes.clear()


@pytest.fixture
def kit(app: FastAPI) -> Runtime:
    """What the application holds open."""
    return runtime()


@pytest.fixture
def jobs(kit: Runtime) -> Callable[[], Awaitable[Sequence[Job]]]:
    """Every row of the table of jobs, oldest first."""

    async def read() -> Sequence[Job]:
        async with kit.database.session_scope() as session:
            return (await session.scalars(select(Job).order_by(Job.id))).all()

    return read


@pytest.fixture
def due(kit: Runtime) -> Callable[[], Awaitable[None]]:
    """Move every waiting moment into the past: what waits for a retry, and what is leased."""

    async def move() -> None:
        async with kit.database.session_scope() as session:
            await session.execute(update(Job).where(Job.finished_at.is_(None)).values(available_at=utcnow()))

    return move


@asynccontextmanager
async def running(runner: JobRunner, grace: float = 5) -> AsyncIterator[JobRunner]:
    """`runner` in the background of the block."""
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop(grace)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for `condition`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  what is waited for knows nothing of tests
            await asyncio.sleep(0.005)


@contextmanager
def listening(target: Any, name: str, function: Callable[..., None]) -> Iterator[None]:
    """SQLAlchemy calls `function` while the block lasts."""
    event.listen(target, name, function)
    try:
        yield
    finally:
        event.remove(target, name, function)


class Rollback(Exception):
    """Ends a block that is to fail."""


@asynccontextmanager
async def rolled_back(unit: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """`unit`, which an error ends."""
    with suppress(Rollback):
        async with unit as opened:
            yield opened
            raise Rollback


def make_runner(kit: Runtime, *, concurrency: int = 10, poll: float = 0.02, lease: float = 60) -> JobRunner:
    """A runner of the application's jobs, not started."""
    return JobRunner(lambda: kit.database, queues=Queues(concurrency), poll=poll, lease=lease)


async def change(kit: Runtime, **values: object) -> None:
    """Write into every row of the table of jobs."""
    async with kit.database.session_scope() as session:
        await session.execute(update(Job).values(**values))
