"""The queue service: stores each job with the transaction that pushes it."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from taskiq import AsyncBroker, InMemoryBroker
from taskiq.kicker import AsyncKicker

from app.core.db.base import db_now, utcnow
from app.core.db.integrity import insert_unless_taken, named_violations
from app.core.db.jobs import DEDUP_KEY_TAKEN, Job, JobStatus
from app.core.db.session import Database, current_session, is_read_only, on_commit, write_late
from app.core.services.background import Background
from app.core.services.log.context import conversation_id, request_id
from app.core.services.queue.broker import RUN_ONCE_TASK, JobWaker, run_once
from app.core.services.queue.interface import (
    BaseTask,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobNotReady,
    QueueServiceInterface,
)
from app.core.services.queue.registry import MAX_KEY_LENGTH, RegisteredTask, tasks
from app.core.services.queue.store import new_job

_FIRST_PAUSE_SECONDS = 0.02
_MAX_PAUSE_SECONDS = 0.5


class QueueService(QueueServiceInterface):
    """Stores durable jobs in the database, and hands the others to taskiq."""

    def __init__(
        self, database: Callable[[], Database], waker: JobWaker, broker: AsyncBroker, background: Background
    ) -> None:
        self._database = database
        self._waker = waker
        self._broker = broker
        self._background = background

    async def push(
        self,
        task: type[BaseTask],
        data: Mapping[str, Any] | None = None,
        *,
        delay: timedelta | float | None = None,
        eta: datetime | None = None,
        dedup_key: str | None = None,
        priority: int | None = None,
        durable: bool = True,
    ) -> int | None:
        registered = tasks.of(task)
        if not durable:
            if (delay, eta, dedup_key, priority) != (None, None, None, None):
                raise TypeError("delay, eta, dedup_key and priority need a durable push: the rest runs at once")
            self._hand_over(registered, registered.dump(data or {}))
            return None
        job = new_job(registered, data or {}, dedup_key=_checked_key(dedup_key), priority=priority)
        if (due := _due(delay, eta)) is not None:
            job.available_at = due
        at_once = due is None or (eta is not None and eta <= utcnow())
        session = current_session()
        if session is None:
            async with self._database().session_scope() as own:
                return await self._store(own, job, at_once)
        if is_read_only(session):
            write_late(session, lambda late: self._store(late, job, at_once))
            return None
        return await self._store(session, job, at_once)

    async def is_ready(self, job_id: int) -> bool:
        return (await self._read(job_id)).finished_at is not None

    async def get_result(self, job_id: int) -> Any:
        job = await self._read(job_id)
        if job.finished_at is None:
            raise JobNotReady
        if job.status == JobStatus.CANCELLED:
            raise JobCancelled
        if job.status == JobStatus.DEAD:
            raise JobFailed(job.last_error or "")
        return job.result

    async def wait_result(self, job_id: int, timeout: float = 0) -> Any:  # noqa: ASYNC109  as the interface
        if timeout > 0 and _open_unit():
            raise RuntimeError("wait_result() in an open unit of work may wait for its end: commit first")
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + timeout, _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self.get_result(job_id)
            except JobNotReady:
                left = deadline - loop.time()
                if left <= 0:
                    raise
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    async def cancel(self, job_id: int) -> bool:
        statement = (
            update(Job)
            .where(Job.id == _known(job_id), Job.status.in_((JobStatus.PENDING, JobStatus.FAILED)))
            .values(status=JobStatus.CANCELLED, finished_at=db_now())
            .returning(Job.id)
        )
        session = current_session()
        if session is not None and not is_read_only(session):
            return await session.scalar(statement) is not None
        async with self._database().session_scope() as own:
            return await own.scalar(statement) is not None

    async def _store(self, session: AsyncSession, job: Job, at_once: bool) -> int:
        if job.dedup_key is None:
            session.add(job)
            with named_violations():  # the unit's other rows are written too
                await session.flush()
        elif (taken := await _store_unless_taken(session, job)) is not None:
            return taken
        if at_once:
            on_commit(session, lambda: self._waker(job))
        return job.id

    async def _read(self, job_id: int) -> "Row[Any]":
        statement = select(Job.status, Job.finished_at, Job.result, Job.last_error).where(Job.id == _known(job_id))
        if unit := _open_unit():
            found = (await unit.execute(statement)).one_or_none()
        else:  # SQLite shows a read-only unit the past
            async with self._database().session_scope(read_only=True) as own:
                found = (await own.execute(statement)).one_or_none()
        if found is None:
            raise JobNotFound
        return found

    def _hand_over(self, task: RegisteredTask, payload: dict[str, Any]) -> None:
        ids = {"request_id": request_id(), "conversation_id": conversation_id()}
        message = {"task": task.name, "payload": payload, **ids}

        def send() -> None:
            self._background.spawn(self._send(message), "a task that is not durable was lost")

        session = current_session()
        if session is None:
            send()
        else:
            on_commit(session, send)

    async def _send(self, message: dict[str, Any]) -> None:
        # Where jobs run in the app there may be nobody who listens to Redis.
        listens = self._broker.is_worker_process or isinstance(self._broker, InMemoryBroker)
        if self._waker.runs_here and not listens:
            await run_once(**message)
            return
        await AsyncKicker(RUN_ONCE_TASK, self._broker, labels={}).kiq(**message)


def _open_unit() -> AsyncSession | None:
    """Return the unit of work this code runs in, if it may write and has begun."""
    session = current_session()
    return None if session is None or is_read_only(session) or not session.in_transaction() else session


async def _store_unless_taken(session: AsyncSession, job: Job) -> int | None:
    """Store `job`; if its key is taken, return the id of the job that has it."""
    values = {name: value for name, value in job.to_dict().items() if value is not None}
    holder = select(Job.id).where(Job.task == job.task, Job.dedup_key == job.dedup_key, Job.finished_at.is_(None))
    while True:  # the holder may finish between the two
        stored = await insert_unless_taken(session, Job, values, unique=("task", "dedup_key"), where=DEDUP_KEY_TAKEN)
        if stored is not None:
            job.id = stored
            return None
        if (taken := await session.scalar(holder)) is not None:
            return taken


def _due(delay: timedelta | float | None, eta: datetime | None) -> datetime | db_now | None:
    """Return when a job is due, None if at once. A delay counts by the database's clock."""
    if delay is not None and eta is not None:
        raise TypeError("delay and eta exclude each other")
    if eta is not None:
        if eta.tzinfo is None:
            raise ValueError("eta is naive: give it a time zone")
        return eta
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay or 0
    if seconds < 0:
        raise ValueError("delay is negative")
    try:
        utcnow() + timedelta(days=1, seconds=seconds)  # a day: the database's clock may be ahead
    except OverflowError as exc:
        raise ValueError("delay is longer than the calendar") from exc
    return db_now(seconds) if seconds else None


def _checked_key(key: str | None) -> str | None:
    if key is not None and not (0 < len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        raise ValueError(f"dedup_key must be 1 to {MAX_KEY_LENGTH} printable characters")
    return key


def _known(job_id: int) -> int:
    """Return `job_id`, or one that no job has if the column could not hold it."""
    return job_id if 0 < job_id < 2**63 else 0
