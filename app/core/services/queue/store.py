"""The SQL of the table of jobs. Every write of a running job is fenced: it needs the row as its run claimed it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, TypeAlias

from sqlalchemy import bindparam, select, update

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.services.log.context import conversation_id, request_id
from app.core.services.queue.outcomes import Outcome
from app.core.services.queue.registry import RegisteredTask

Run: TypeAlias = tuple[int, int, datetime | None]
"""A job's id, the attempt it was claimed for, and when: a hand-back or a retry repeats attempts, never the moment."""

# Composed once: every job pays for these.
_table = Job.metadata.tables[Job.__tablename__]
_due = select(Job.id).where(
    Job.finished_at.is_(None),
    Job.available_at <= bindparam("now"),
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
        available_at=bindparam("lease_ends"),
        started_at=bindparam("now"),
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


def new_job(
    task: RegisteredTask, data: Mapping[str, Any], *, dedup_key: str | None = None, principal: str | None = None
) -> Job:
    """A row for one run of `task`, due now, with the correlation ids of the code that asks for it."""
    payload = task.dump(data)
    return Job(
        task=task.name,
        payload=payload,
        max_attempts=task.cls.max_attempts,
        available_at=utcnow(),
        request_id=request_id(),
        conversation_id=conversation_id(),
        dedup_key=dedup_key,
        principal=principal or task.cls._get_principal(payload),
    )


class JobStore:
    """Claims jobs and records what became of them, each call in a transaction of its own."""

    def __init__(self, database: Callable[[], Database], lease: timedelta) -> None:
        self._database = database
        self._lease = lease

    async def any_due(self, besides: Iterable[int] = ()) -> bool:
        """Whether a claim would find something. To look costs little, a claim takes SQLite's only write lock."""
        async with self._database().session_scope(read_only=True) as session:
            return await session.scalar(_any_due, {"now": utcnow(), "besides": list(besides)}) is not None

    async def claim(self, limit: int, besides: Iterable[int] = ()) -> Sequence[Job]:
        """Take up to `limit` due jobs, but none of the ids in `besides`, for the length of a lease.

        A job whose last allowed attempt ended with its lease (it may have killed its process) is dead instead.
        """
        async with self._database().session_scope() as session:
            await session.connection()  # now, or waiting for SQLite's lock would shorten the lease
            now = utcnow()
            values = {"limit": limit, "besides": list(besides), "now": now, "lease_ends": now + self._lease}
            claimed = await session.scalars(_claim, values)
            return [job for job in sorted(claimed, key=lambda job: job.id) if not _bury_exhausted(job)]

    async def extend(self, jobs: Iterable[Job]) -> set[Job]:
        """Lengthen leases; those that are still held."""
        until = utcnow() + self._lease
        return await self.record([Outcome(job, {"available_at": until}) for job in jobs])

    async def record(self, outcomes: Sequence[Outcome]) -> set[Job]:
        """Write what became of runs, in one transaction; those that were still held."""
        by_run = {_run_of(outcome.job): outcome for outcome in outcomes}
        async with self._database().session_scope() as session:
            connection = await session.connection()
            found = await connection.execute(_running, {"ids": [outcome.job.id for outcome in outcomes]})
            held = [by_run[run] for row in found if (run := tuple(row)) in by_run]
            rows = sorted(({"job_id": outcome.job.id, **outcome.values} for outcome in held), key=list)
            for _, alike in groupby(rows, key=list):  # those that set the same columns go in one call
                await connection.execute(_write, list(alike))
            return {outcome.job for outcome in held}

    async def write(self, outcome: Outcome) -> bool:
        """Write what became of one run; False where it no longer held its job."""
        return bool(await self.record([outcome]))


def _run_of(job: Job) -> Run:
    return job.id, job.attempts, job.started_at


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
