"""The SQL of the jobs table. Updates to a running job are fenced: they apply only to the run that claimed it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Float,
    Select,
    bindparam,
    delete,
    exists,
    false,
    func,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.db.base import db_now
from app.core.db.jobs import Job, JobGate, JobStatus
from app.core.db.session import Database
from app.core.metrics import job_runs
from app.core.services.log.context import conversation_id, request_id
from app.core.services.queue.interface import Limit, checked_priority
from app.core.services.queue.limits import UNLIMITED, Gate, Queues, enter_gate, is_running, key_gate, queue_gate
from app.core.services.queue.registry import RegisteredTask, UnknownTask, tasks

MAX_LOST = 1000
"""Most jobs of lost processes that one claim handles."""
RETRIABLE = (JobStatus.FAILED, JobStatus.DEAD, JobStatus.CANCELLED)

_LOWEST = -(2**15)  # what the column holds

# Built once: building a statement costs time, and every job needs these.
_table = Job.metadata.tables[Job.__tablename__]


def _find_lanes() -> Select[Any]:
    """List the lanes that are not paused, by priority, each with whether a job in it is due.

    A lane is the unfinished jobs of one queue and priority. Each step of the recursion is one lookup in the index of
    claims, so a lane of 100,000 jobs costs as much as one of a single job. Each lookup is an ordered scalar subquery:
    for other forms PostgreSQL may read the whole table. Comparisons replace IS NOT NULL, as the planner takes them for
    rare: it overestimates each recursion tenfold, and compiles a statement that looks expensive, for 0.4 s.
    """
    job = _table.alias("job")

    def first(column: Any, *conditions: Any, order: Any = None) -> Any:
        ordered = select(column).where(job.c.finished_at.is_(None), *conditions)
        return ordered.order_by(column if order is None else order).limit(1)

    queues = select(first(job.c.queue).scalar_subquery().label("queue")).cte("queues", recursive=True)
    known = queues.alias()
    following = first(job.c.queue, job.c.queue > known.c.queue).correlate(known).scalar_subquery()
    queues = queues.union_all(select(following).where(known.c.queue > ""))

    highest = first(job.c.priority, job.c.queue == queues.c.queue, order=job.c.priority.desc()).correlate(queues)
    top = select(queues.c.queue, highest.scalar_subquery().label("priority")).where(queues.c.queue > "")
    lanes = top.cte("lanes", recursive=True)
    above = lanes.alias()
    lower = (job.c.queue == above.c.queue, job.c.priority < above.c.priority)
    next_one = first(job.c.priority, *lower, order=job.c.priority.desc()).correlate(above).scalar_subquery()
    lanes = lanes.union_all(select(above.c.queue, next_one).where(above.c.priority >= _LOWEST))

    mine = (job.c.queue == lanes.c.queue, job.c.priority == lanes.c.priority, job.c.suspect.is_(False))
    due = first(job.c.id, *_waits(job.c), *mine, order=job.c.available_at).correlate(lanes)
    paused = select(JobGate.paused).where(JobGate.name == queue_gate("") + lanes.c.queue).scalar_subquery()
    return (
        select(
            *lanes.c,
            db_now().label("now"),
            due.scalar_subquery().label("due"),
            first(job.c.id, *_waits(job.c), job.c.suspect, order=job.c.priority).scalar_subquery().label("suspect"),
            select(job.c.id).where(*_lease_is_over(job.c)).limit(1).scalar_subquery().label("lost"),
        )
        .where(lanes.c.priority >= _LOWEST, ~func.coalesce(paused, false()))
        .order_by(lanes.c.priority.desc(), lanes.c.queue)
    )


def _waits(job: Any) -> tuple[ColumnElement[bool], ...]:
    return job.available_at <= db_now(), job.status != JobStatus.PROCESSING


def _lease_is_over(job: Any) -> tuple[ColumnElement[bool], ...]:
    # After a late heartbeat (SQLite is locked, a task blocks the loop) our own jobs look lost: not those.
    return is_running(job), job.available_at <= db_now(), job.id.not_in(bindparam("own", expanding=True))


_lanes = _find_lanes()
_full_until = select(JobGate.full_until).where(JobGate.name == key_gate("") + Job.limit_key).scalar_subquery()
_waiting = (
    select(_table.c.id, _table.c.task, _table.c.queue, _table.c.limit_key)
    .where(*_waits(_table.c), _table.c.finished_at.is_(None))
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_in_lane = _waiting.where(
    Job.queue == bindparam("in_queue"),
    Job.priority == bindparam("at_priority"),
    Job.suspect.is_(False),
    Job.limit_key.is_(None) | func.coalesce(_full_until <= db_now(), true()),
).order_by(Job.available_at, Job.id)
_next = _in_lane.cte("next")  # PostgreSQL may evaluate a plain subquery more than once and take more than the limit
_in_lane = _in_lane.where(Job.limit_key.is_(None) | Job.limit_key.not_in(bindparam("full", expanding=True)))
# By an expression: SQLite would take the large index of claims for the queue itself.
_of_queues = func.coalesce(Job.queue, "").in_(bindparam("queues", expanding=True))
_suspects = _waiting.where(Job.suspect, _of_queues).order_by(Job.priority.desc(), Job.available_at, Job.id)
_lost = (
    select(Job).where(*_lease_is_over(Job)).order_by(Job.id).limit(bindparam("limit")).with_for_update(skip_locked=True)
)
_claim = (
    update(Job)
    .values(
        status=JobStatus.PROCESSING,
        attempts=Job.attempts + 1,
        available_at=db_now(bindparam("lease", type_=Float())),
        started_at=db_now(),
    )
    .returning(Job)
    .execution_options(synchronize_session=False)
)
_claim_next = _claim.where(Job.id.in_(select(_next.c.id)), ~exists().where(_next.c.limit_key.is_not(None)))
_claim_these = _claim.where(Job.id.in_(bindparam("ids", expanding=True)))
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
    """Columns to write into a job's row, applied only while the row still belongs to the run that claimed `job`.

    `after` is the delay before the job may be claimed again; None: it has ended.
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
    task: RegisteredTask,
    data: Mapping[str, Any],
    *,
    dedup_key: str | None = None,
    principal: str | None = None,
    priority: int | None = None,
) -> Job:
    """Make a row for one run of `task`, due when it is stored, with the correlation ids of the calling code."""
    payload = task.dump(data)
    return Job(
        task=task.name,
        payload=payload,
        queue=task.cls.queue,
        priority=checked_priority(task.cls.priority if priority is None else priority),
        limit_key=task.limit_key(payload),
        max_attempts=task.cls.max_attempts,
        request_id=request_id(),
        conversation_id=conversation_id(),
        dedup_key=dedup_key,
        principal=principal or task.cls._get_principal(payload),
    )


Room = Callable[[str, bool], int]
"""Returns the free slots of a queue in this process: for its ordinary jobs, or if True for its suspects."""


class JobStore:
    """Claims jobs and records the outcomes of their runs, each call in a transaction of its own."""

    def __init__(self, database: Callable[[], Database], lease: timedelta, queues: Queues | None = None) -> None:
        self._database = database
        self._lease = lease
        self._queues = queues or Queues(UNLIMITED)

    async def any_due(self, room: Room, own: Iterable[int] = ()) -> bool:
        """Return whether a claim would find a job. It only reads, while a claim takes SQLite's only write lock."""
        async with self._database().session_scope(read_only=True) as session:
            lanes = await session.execute(_lanes, {"own": list(own)})
            return any(
                lane.lost or (lane.suspect and room(lane.queue, True) > 0) or (lane.due and room(lane.queue, False) > 0)
                for lane in lanes
            )

    async def claim(self, room: int | Room, own: Iterable[int] = ()) -> Sequence[Job]:
        """Lease due jobs, as many of each queue as there is `room` and its limits allow.

        Those of which a process was lost become suspects, but for this process's `own`.
        """
        async with self._database().session_scope() as session:
            lanes = (await session.execute(_lanes, {"own": list(own)})).all()
            if not lanes:
                return []
            if lanes[0].lost:
                await _suspect_lost(session, own)
            room_for = (lambda *_: room) if isinstance(room, int) else room
            claim = _Claim(session, self._queues, room_for, self._lease.total_seconds(), lanes[0].now)
            suspects = lanes[0].lost or lanes[0].suspect
            if suspects and (queues := [lane.queue for lane in lanes if room_for(lane.queue, True) > 0]):
                await claim.take_suspects(queues)
            for lane in lanes:
                if lane.due:
                    await claim.take(lane.queue, lane.priority)
            return claim.jobs

    async def find_claimed(self, job_id: int, attempts: int, started_at: str) -> Job | None:
        """Return the job that another process claimed, or None if it has lost the claim."""
        async with self._database().session_scope(read_only=True) as session:
            job = await session.get(Job, job_id)
        run = (JobStatus.PROCESSING, attempts, started_at)
        return job if job and (job.status, job.attempts, str(job.started_at)) == run else None

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


@dataclass
class _Claim:
    """The jobs that one claim takes."""

    _session: AsyncSession
    _queues: Queues
    _room: Room
    _lease: float
    _now: datetime
    _gates: dict[str, Gate] = field(default_factory=dict)
    _full: set[str] = field(default_factory=set)
    jobs: list[Job] = field(default_factory=list)

    async def take_suspects(self, queues: Sequence[str]) -> None:
        """Select suspects of these queues; they share one slot."""
        ids: list[int] = []
        for row in (await self._session.execute(_suspects, {"queues": queues, "limit": MAX_LOST})).all():
            if self._room(row.queue, True) > len(ids) and await self._admits(row, await self._queue_gate(row.queue)):
                ids.append(row.id)
        await self._lease_these(ids)

    async def take(self, queue: str, priority: int) -> None:
        """Select jobs of a lane in order, as many as its queue has room for."""
        lane = {"in_queue": queue, "at_priority": priority, "lease": self._lease}
        gate = await self._queue_gate(queue)
        if gate is None and (room := self._room_left(queue)) > 0:
            # In one statement, unless one of them has a key: its limit must be looked at first.
            taken = await self._session.scalars(_claim_next, {**lane, "limit": room})
            if self._add(taken):
                return
        while (room := self._room_left(queue, gate)) > 0:
            values = {**lane, "full": list(self._full), "limit": room}
            ids: list[int] = []
            refused: set[str] = set()
            for row in (await self._session.execute(_in_lane, values)).all():
                if await self._admits(row, gate):
                    ids.append(row.id)
                else:
                    refused.add(row.limit_key)
            await self._lease_these(ids)
            if not refused:
                return
            self._full |= refused

    def _room_left(self, queue: str, gate: Gate | None = None) -> int:
        left = self._room(queue, False) - sum(job.queue == queue and not job.suspect for job in self.jobs)
        return left if gate is None else min(left, gate.room)

    async def _lease_these(self, ids: Sequence[int]) -> None:
        if ids:
            self._add(await self._session.scalars(_claim_these, {"ids": ids, "lease": self._lease}))

    def _add(self, claimed: Iterable[Job]) -> bool:
        jobs = sorted(claimed, key=lambda job: job.id)
        self.jobs += jobs
        return bool(jobs)

    async def _admits(self, row: Any, queue_gate: Gate | None) -> bool:
        """Return whether the limits of its queue and its key let a job begin, and count it there."""
        limit = None
        with suppress(UnknownTask):  # its run reports the error
            limit = tasks.get(row.task).cls.limit
        gates = [queue_gate] if queue_gate else []
        if row.limit_key is not None and limit is not None:
            gates.append(await self._gate(key_gate(row.limit_key), limit, Job.limit_key == row.limit_key))
        if any(gate.room < 1 for gate in gates):
            return False
        for gate in gates:
            gate.begin(self._now)
        return True

    async def _queue_gate(self, queue: str) -> Gate | None:
        limit = self._queues.limit(queue)
        return await self._gate(queue_gate(queue), limit, Job.queue == queue) if limit else None

    async def _gate(self, name: str, limit: Limit, mine: ColumnElement[bool]) -> Gate:
        if name not in self._gates:
            self._gates[name] = await enter_gate(self._session, name, limit, mine, self._now)
        return self._gates[name]


async def _suspect_lost(session: AsyncSession, own: Iterable[int]) -> None:
    """Let jobs whose lease is over wait again, as suspects: any of them may have ended the process.

    Charge an attempt only if the job ran alone.
    """
    for job in await session.scalars(_lost, {"own": list(own), "limit": MAX_LOST}):
        error = f"LeaseExpired: the process running it was lost in attempt {job.attempts}"
        if job.suspect and job.attempts >= job.max_attempts:
            job.update(status=JobStatus.DEAD, finished_at=db_now(), last_error=error)
            job_runs.inc(tasks.label(job.task), JobStatus.DEAD)
            continue
        job.update(status=JobStatus.FAILED, available_at=db_now(), last_error=error)
        if not job.suspect:
            job.update(suspect=True, max_attempts=job.max_attempts + 1)
    await session.flush()


async def find_jobs(
    *,
    db: AsyncSession,
    statuses: Collection[JobStatus] = (),
    task: str | None = None,
    queue: str | None = None,
    limit: int | None = None,
) -> Sequence[Job]:
    """Return jobs of any of these statuses, of this task and queue, newest first."""
    found = select(Job).order_by(Job.id.desc()).limit(limit)
    if statuses:
        found = found.where(Job.status.in_(statuses))
    if task is not None:
        found = found.where(Job.task == task)
    if queue is not None:
        found = found.where(Job.queue == queue)
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


async def move_jobs(*, db: AsyncSession, principal: str, to: str, since: datetime) -> None:
    """Give the later jobs of `principal` to another one: to a user those of mails to an address no longer theirs."""
    await db.execute(update(Job).where(Job.principal == principal, Job.created_at >= since).values(principal=to))


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
