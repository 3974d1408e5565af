"""The SQL of the jobs table. Updates to a running job are fenced: they apply only to the run that claimed it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Float, bindparam, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.db.base import db_now
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.services.log.context import conversation_id, request_id
from app.core.services.queue.registry import RegisteredTask

RETRIABLE = (JobStatus.FAILED, JobStatus.DEAD, JobStatus.CANCELLED)

# Composed once: every job pays for these.
_table = Job.metadata.tables[Job.__tablename__]
_due = select(Job.id).where(
    Job.finished_at.is_(None),
    Job.available_at <= db_now(),
    Job.id.not_in(bindparam("besides", expanding=True)),
)
_any_due = _due.limit(1)
_next_due = (
    _due.order_by(Job.available_at, Job.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
    .cte("due")  # PostgreSQL may evaluate a plain subquery more than once and take more than the limit
)
_claim = (
    update(Job)
    .where(Job.id.in_(select(_next_due.c.id)))
    .values(
        status=JobStatus.PROCESSING,
        attempts=Job.attempts + 1,
        available_at=db_now(bindparam("lease", type_=Float())),
        started_at=db_now(),
    )
    .returning(Job)
    .execution_options(synchronize_session=False)
)
# Locked in order: two transactions with rows in common do not wait for each other. By id alone: SQLite looks for a
# tuple through the whole table.
_running = (
    select(Job.id, Job.attempts, Job.started_at)
    .where(Job.id.in_(bindparam("ids", expanding=True)), Job.status == JobStatus.PROCESSING)
    .order_by(Job.id)
    .with_for_update()
)
_write = update(_table).where(_table.c.id == bindparam("job_id"))
_end = _write.values(finished_at=db_now())
_free = _write.values(available_at=db_now(bindparam("after", type_=Float())))


@dataclass(frozen=True)
class Outcome:
    """Columns to write into a job's row, as long as the row still belongs to the run that `job` was claimed for.

    The job may be claimed again `after` that time; None: it has ended.
    """

    job: Job
    values: Mapping[str, Any]
    after: timedelta | None = None


def completed(job: Job, result: Any = None) -> Outcome:
    """Record success and the result."""
    return Outcome(job, {"status": JobStatus.COMPLETED, "last_error": None, "result": result})


def dead(job: Job, error: str) -> Outcome:
    """Give the job up: it becomes a dead letter."""
    return Outcome(job, {"status": JobStatus.DEAD, "last_error": error})


def failed(job: Job, error: str, delay: timedelta) -> Outcome:
    """Record a failed attempt; the next may start after `delay`."""
    return Outcome(job, {"status": JobStatus.FAILED, "last_error": error}, delay)


def postponed(job: Job, error: str, delay: timedelta) -> Outcome:
    """Give the attempt back, as this process cannot run the job; the pauses grow with `attempts`."""
    return Outcome(job, {**failed(job, error, delay).values, "max_attempts": job.max_attempts + 1}, delay)


def handed_back(job: Job) -> Outcome:
    """Release the job because this process stops; the interrupted attempt does not count."""
    return Outcome(job, {"status": JobStatus.PENDING, "attempts": job.attempts - 1}, timedelta())


def new_job(
    task: RegisteredTask, data: Mapping[str, Any], *, dedup_key: str | None = None, principal: str | None = None
) -> Job:
    """Make a row for one run of `task`, due when it is stored, with the correlation ids of the calling code."""
    payload = task.dump(data)
    return Job(
        task=task.name,
        payload=payload,
        max_attempts=task.cls.max_attempts,
        request_id=request_id(),
        conversation_id=conversation_id(),
        dedup_key=dedup_key,
        principal=principal or task.cls._get_principal(payload),
    )


class JobStore:
    """Claims jobs and records the outcomes of their runs, each call in a transaction of its own."""

    def __init__(self, database: Callable[[], Database], lease: timedelta) -> None:
        self._database = database
        self._lease = lease

    async def any_due(self, besides: Iterable[int] = ()) -> bool:
        """Return whether a claim would find something. A read costs little, a claim takes SQLite's only write lock."""
        async with self._database().session_scope(read_only=True) as session:
            return await session.scalar(_any_due, {"besides": list(besides)}) is not None

    async def claim(self, limit: int, besides: Iterable[int] = ()) -> Sequence[Job]:
        """Lease up to `limit` due jobs, but none of the ids in `besides`.

        A job whose last allowed attempt ended with its lease (it may have killed its process) is dead instead.
        """
        async with self._database().session_scope() as session:
            values = {"limit": limit, "besides": list(besides), "lease": self._lease.total_seconds()}
            claimed = await session.scalars(_claim, values)
            return [job for job in sorted(claimed, key=lambda job: job.id) if not _dead_letter_if_exhausted(job)]

    async def extend(self, jobs: Iterable[Job]) -> set[Job]:
        """Extend leases; return the jobs that are still held."""
        return await self.record([Outcome(job, {}, self._lease) for job in jobs])

    async def record(self, outcomes: Sequence[Outcome]) -> set[Job]:
        """Write outcomes in one transaction; return the jobs that were still held."""
        by_run = {_run_of(outcome.job): outcome for outcome in outcomes}
        async with self._database().session_scope() as session:
            connection = await session.connection()
            found = await connection.execute(_running, {"ids": [outcome.job.id for outcome in outcomes]})
            held = [by_run[run] for row in found if (run := tuple(row)) in by_run]
            rows = sorted(map(_row, held), key=list)
            for columns, alike in groupby(rows, key=list):  # those that set the same columns go in one call
                await connection.execute(_free if "after" in columns else _end, list(alike))
            return {outcome.job for outcome in held}

    async def write(self, outcome: Outcome) -> bool:
        """Write one outcome; False if the run no longer held its job."""
        return bool(await self.record([outcome]))


def _row(outcome: Outcome) -> dict[str, Any]:
    after = {} if outcome.after is None else {"after": outcome.after.total_seconds()}
    return {"job_id": outcome.job.id, **after, **outcome.values}


def _run_of(job: Job) -> tuple[int, int, datetime | None]:
    # When it was claimed too: a hand-back or a retry repeats attempts, never the moment.
    return job.id, job.attempts, job.started_at


def _dead_letter_if_exhausted(job: Job) -> bool:
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


async def find_jobs(
    *, db: AsyncSession, statuses: Collection[JobStatus] = (), task: str | None = None, limit: int | None = None
) -> Sequence[Job]:
    """Return jobs of any of these statuses and this task, newest first."""
    found = select(Job).order_by(Job.id.desc()).limit(limit)
    if statuses:
        found = found.where(Job.status.in_(statuses))
    if task is not None:
        found = found.where(Job.task == task)
    return (await db.scalars(found)).all()


async def statuses_of(*, db: AsyncSession, ids: Iterable[int]) -> dict[int, JobStatus]:
    """Return the status of each of these jobs that exists."""
    found = await db.execute(select(Job.id, Job.status).where(Job.id.in_(list(ids))))
    return {row.id: row.status for row in found}


async def retry_jobs(*, db: AsyncSession, ids: Iterable[int]) -> list[int]:
    """Make these jobs due again with all their attempts if they failed, died or were cancelled; return their ids."""
    return await _retry(db, Job.id.in_(list(ids)), Job.status.in_(RETRIABLE))


async def retry_dead_jobs(*, db: AsyncSession, task: str | None = None) -> list[int]:
    """Make every dead job due again, or those of one task, as `retry_jobs` does."""
    return await _retry(db, Job.status == JobStatus.DEAD, *([] if task is None else [Job.task == task]))


async def purge_jobs(*, db: AsyncSession, older_than: timedelta, dead: bool = False) -> dict[JobStatus, int]:
    """Delete jobs completed or cancelled longer ago, dead ones only if told; return how many of each."""
    removed = {}
    for status in (JobStatus.COMPLETED, JobStatus.CANCELLED, *([JobStatus.DEAD] if dead else [])):
        result = await db.execute(
            delete(Job).where(Job.status == status, Job.finished_at < db_now(-older_than.total_seconds()))
        )
        assert isinstance(result, CursorResult)  # noqa: S101  what a DELETE gives
        removed[status] = result.rowcount
    return removed


async def erase_jobs(*, db: AsyncSession, principals: Collection[str]) -> int:
    """Delete the finished jobs that hold data of these principals; return how many still have to run."""
    theirs = Job.principal.in_(principals)
    await db.execute(delete(Job).where(theirs, Job.finished_at.is_not(None)))
    return await db.scalar(select(func.count()).where(theirs)) or 0


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
        .values(status=JobStatus.PENDING, attempts=0, available_at=db_now(), finished_at=None)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    return sorted(await db.scalars(again))
