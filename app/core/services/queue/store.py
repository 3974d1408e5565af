"""The SQL of the table of jobs. Every write of a running job is fenced by (id, attempts)."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, delete, select, update

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.services.log.context import conversation_id, request_id
from app.core.services.queue.registry import RegisteredTask


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
        now = utcnow()
        # A look costs nothing; the claim takes SQLite's only write lock.
        if not await self._any_due(now):
            return []
        due = select(Job).where(Job.finished_at.is_(None), Job.available_at <= now)
        async with self._database().session_scope() as session:
            rows = await session.scalars(
                due.order_by(Job.available_at, Job.id).limit(limit).with_for_update(skip_locked=True)
            )
            taken_at = utcnow()  # not before: waiting for SQLite's lock would shorten the lease
            return [job for job in rows.all() if self._take(job, taken_at)]

    async def extend(self, job: Job) -> bool:
        """Lengthen the lease; False where it was lost."""
        return await self._write(job, available_at=utcnow() + self._lease)

    async def complete(self, job: Job) -> bool:
        """The job is done."""
        return await self._write(job, status=JobStatus.COMPLETED, finished_at=utcnow(), last_error=None)

    async def retry(self, job: Job, error: str, delay: timedelta) -> bool:
        """The attempt failed; the next may start after `delay`."""
        return await self._write(job, status=JobStatus.FAILED, available_at=utcnow() + delay, last_error=error)

    async def bury(self, job: Job, error: str) -> bool:
        """The job is given up."""
        return await self._write(job, status=JobStatus.DEAD, finished_at=utcnow(), last_error=error)

    async def release(self, job: Job) -> bool:
        """Hand the job back: this process stops. The interrupted attempt does not count."""
        return await self._write(job, status=JobStatus.PENDING, available_at=utcnow(), attempts=job.attempts - 1)

    async def purge(self, before: datetime) -> int:
        """Remove what was completed before a moment; dead jobs stay until someone looks at them."""
        async with self._database().session_scope() as session:
            result = await session.execute(
                delete(Job).where(Job.status == JobStatus.COMPLETED, Job.finished_at < before)
            )
            return _count(result)

    async def _any_due(self, now: datetime) -> bool:
        due = select(Job.id).where(Job.finished_at.is_(None), Job.available_at <= now).limit(1)
        async with self._database().session_scope(read_only=True) as session:
            return await session.scalar(due) is not None

    def _take(self, job: Job, now: datetime) -> bool:
        if job.attempts >= job.max_attempts:
            job.update(
                status=JobStatus.DEAD,
                finished_at=now,
                last_error=f"LeaseExpired: the process running it was lost in attempt {job.attempts}",
            )
            return False
        job.update(
            status=JobStatus.PROCESSING, attempts=job.attempts + 1, available_at=now + self._lease, started_at=now
        )
        return True

    async def _write(self, job: Job, **values: Any) -> bool:
        mine = (Job.id == job.id, Job.attempts == job.attempts, Job.status == JobStatus.PROCESSING)
        async with self._database().session_scope() as session:
            statement = update(Job).where(*mine).values(**values).execution_options(synchronize_session=False)
            return _count(await session.execute(statement)) == 1


def _count(result: Any) -> int:
    assert isinstance(result, CursorResult)  # noqa: S101  what UPDATE and DELETE give
    return result.rowcount
