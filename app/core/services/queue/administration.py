"""Looking after the table of jobs by hand; each function works in the caller's unit of work."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, CursorResult, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from taskiq import AsyncBroker
from taskiq.exceptions import TaskiqError
from taskiq.kicker import AsyncKicker

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.services.queue.broker import WAKE_TASK

RETRIABLE = (JobStatus.FAILED, JobStatus.DEAD, JobStatus.CANCELLED)

_WAKE_SECONDS = 2.0


async def find_jobs(
    *, db: AsyncSession, statuses: Collection[JobStatus] = (), task: str | None = None, limit: int | None = None
) -> Sequence[Job]:
    """Jobs of any of these statuses and this task, newest first."""
    found = select(Job).order_by(Job.id.desc()).limit(limit)
    if statuses:
        found = found.where(Job.status.in_(statuses))
    if task is not None:
        found = found.where(Job.task == task)
    return (await db.scalars(found)).all()


async def statuses_of(*, db: AsyncSession, ids: Iterable[int]) -> dict[int, JobStatus]:
    """The status of each of these jobs that there is."""
    found = await db.execute(select(Job.id, Job.status).where(Job.id.in_(list(ids))))
    return {row.id: row.status for row in found}


async def retry_jobs(*, db: AsyncSession, ids: Iterable[int]) -> list[int]:
    """Make those of these jobs due that failed, died or were cancelled, with all their attempts; which it were."""
    return await _retry(db, Job.id.in_(list(ids)), Job.status.in_(RETRIABLE))


async def retry_dead_jobs(*, db: AsyncSession, task: str | None = None) -> list[int]:
    """Make every dead job due, or those of one task, as `retry_jobs` does."""
    return await _retry(db, Job.status == JobStatus.DEAD, *([] if task is None else [Job.task == task]))


async def purge_jobs(*, db: AsyncSession, before: datetime, dead: bool = False) -> dict[JobStatus, int]:
    """Remove jobs that were completed or cancelled before a moment, dead ones only if told; how many of each."""
    statuses = [JobStatus.COMPLETED, JobStatus.CANCELLED, *([JobStatus.DEAD] if dead else [])]
    removed = {}
    for status in statuses:
        result = await db.execute(delete(Job).where(Job.status == status, Job.finished_at < before))
        assert isinstance(result, CursorResult)  # noqa: S101  what a DELETE gives
        removed[status] = result.rowcount
    return removed


async def erase_jobs(*, db: AsyncSession, principals: Collection[str]) -> int:
    """Remove the finished jobs that hold data of these principals; how many are left, as they still have to run."""
    theirs = Job.principal.in_(principals)
    await db.execute(delete(Job).where(theirs, Job.finished_at.is_not(None)))
    return await db.scalar(select(func.count()).where(theirs)) or 0


async def wake_workers(broker: AsyncBroker, ids: list[int]) -> bool:
    """Tell workers that these jobs are due; False where they cannot be told, which costs time and no job."""
    kicker: AsyncKicker[..., None] = AsyncKicker(WAKE_TASK, broker, labels={})
    try:
        async with asyncio.timeout(_WAKE_SECONDS):
            await kicker.kiq(ids)
    except (TaskiqError, OSError):  # TimeoutError is an OSError
        return False
    return True


async def _retry(db: AsyncSession, *conditions: ColumnElement[bool]) -> list[int]:
    other = aliased(Job)
    # Another job with the same key has taken the work over.
    replaced = Job.finished_at.is_not(None) & exists().where(
        other.task == Job.task,
        other.dedup_key == Job.dedup_key,
        (other.id > Job.id) | (other.finished_at.is_(None) & (other.id != Job.id)),
    )
    again = (
        update(Job)
        .where(*conditions, ~replaced)
        .values(status=JobStatus.PENDING, attempts=0, available_at=utcnow(), finished_at=None)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    return sorted(await db.scalars(again))
