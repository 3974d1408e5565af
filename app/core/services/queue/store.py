"""The SQL of the table of jobs. Every write of a running job is fenced by (id, attempts)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import CursorResult, Select, bindparam, delete, select, tuple_, update
from sqlalchemy.sql.dml import ReturningUpdate

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.services.log.context import conversation_id, request_id
from app.core.services.queue.outcomes import Outcome
from app.core.services.queue.registry import RegisteredTask

Run: TypeAlias = tuple[int, int]
"""A job's id and the attempt it was claimed for."""

_REMOVABLE = (JobStatus.COMPLETED, JobStatus.CANCELLED)
_HELD = (
    select(Job.id, Job.attempts)
    .where(
        tuple_(Job.id, Job.attempts).in_(bindparam("runs", expanding=True)),
        Job.status == JobStatus.PROCESSING,
    )
    .order_by(Job.id)
    .with_for_update()
)


def new_job(task: RegisteredTask, data: Mapping[str, Any], *, dedup_key: str | None = None) -> Job:
    """A row for one run of `task`, due now, with the correlation ids of the code that asks for it."""
    return Job(
        task=task.name,
        payload=task.dump(data),
        max_attempts=task.cls.max_attempts,
        available_at=utcnow(),
        request_id=request_id(),
        conversation_id=conversation_id(),
        dedup_key=dedup_key,
    )


class JobStore:
    """Claims jobs and records what became of them, each call in a transaction of its own."""

    def __init__(self, database: Callable[[], Database], lease: timedelta) -> None:
        self._database = database
        self._lease = lease

    async def claim(self, limit: int) -> Sequence[Job]:
        """Take up to `limit` due jobs for the length of a lease.

        A job whose last allowed attempt ended with its lease (it may have killed its process) is dead instead.
        """
        # A look costs nothing; the claim takes SQLite's only write lock.
        if not await self._any_due():
            return []
        async with self._database().session_scope() as session:
            await session.connection()  # now, or waiting for SQLite's lock would shorten the lease
            claimed = await session.scalars(_claim(limit, utcnow(), self._lease))
            return [job for job in sorted(claimed, key=lambda job: job.id) if not _bury_exhausted(job)]

    async def extend(self, jobs: Iterable[Job]) -> set[Run]:
        """Lengthen leases; those that are still held."""
        until = utcnow() + self._lease
        return await self.record([Outcome(job, {"available_at": until}) for job in jobs])

    async def record(self, outcomes: Sequence[Outcome]) -> set[Run]:
        """Write what became of runs, in one transaction; those that still held their job."""
        async with self._database().session_scope() as session:
            # Locked first and in order: two transactions with rows in common cannot wait for each other.
            runs = [(outcome.job.id, outcome.job.attempts) for outcome in outcomes]
            held = await session.execute(_HELD, {"runs": runs})
            found = {(number, attempts) for number, attempts in held}
            changes = [
                {"id": outcome.job.id, **outcome.values}
                for outcome, run in zip(outcomes, runs, strict=True)
                if run in found
            ]
            if changes:
                await session.execute(update(Job), changes)
            return found

    async def write(self, outcome: Outcome) -> bool:
        """Write what became of one run; False where it no longer held its job."""
        return bool(await self.record([outcome]))

    async def purge(self, before: datetime) -> int:
        """Remove what was completed or cancelled before a moment; dead jobs stay until someone looks at them."""
        async with self._database().session_scope() as session:
            result = await session.execute(delete(Job).where(Job.status.in_(_REMOVABLE), Job.finished_at < before))
            return _count(result)

    async def _any_due(self) -> bool:
        async with self._database().session_scope(read_only=True) as session:
            return await session.scalar(_due(utcnow()).limit(1)) is not None


def _due(now: datetime) -> Select[int]:
    return select(Job.id).where(Job.finished_at.is_(None), Job.available_at <= now)


def _claim(limit: int, now: datetime, lease: timedelta) -> ReturningUpdate[Job]:
    due = _due(now).order_by(Job.available_at, Job.id).limit(limit).with_for_update(skip_locked=True)
    return (
        update(Job)
        # PostgreSQL may evaluate a plain subquery more than once and take more than `limit`.
        .where(Job.id.in_(select(due.cte("due").c.id)))
        .values(status=JobStatus.PROCESSING, attempts=Job.attempts + 1, available_at=now + lease, started_at=now)
        .returning(Job)
        .execution_options(synchronize_session=False)
    )


def _bury_exhausted(job: Job) -> bool:
    if job.attempts <= job.max_attempts:
        return False
    tried = job.attempts - 1
    job.update(
        status=JobStatus.DEAD,
        attempts=tried,
        finished_at=job.started_at,
        last_error=f"LeaseExpired: the process running it was lost in attempt {tried}",
    )
    return True


def _count(result: Any) -> int:
    assert isinstance(result, CursorResult)  # noqa: S101  what UPDATE and DELETE give
    return result.rowcount
