"""Queues and limits: the queues this process serves, and the limits that hold over all processes."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.configs.app import QUEUE_SETTING
from app.core.db.base import db_now
from app.core.db.integrity import insert_unless_taken
from app.core.db.jobs import Job, JobGate, JobStatus
from app.core.services.queue.interface import MAX_LIMIT_SECONDS, Limit

UNLIMITED = 1_000_000


class Queues:
    """The queues this process serves, with `slots` each unless `declared` (the setting `JOBS_QUEUES`) says otherwise.

    `only` restricts it to these queues; empty, it serves every queue that has jobs.
    """

    def __init__(self, slots: int, declared: Iterable[str] = (), only: Collection[str] = ()) -> None:
        self._default = slots
        self._slots: dict[str, int] = {}
        self._limits: dict[str, Limit] = {}
        self.only = frozenset(only)
        for each in declared:
            if found := QUEUE_SETTING.fullmatch(each):
                self._slots[found["name"]] = int(found["slots"])
                if found["running"] or found["starts"]:
                    running, starts = (int(found[name]) if found[name] else None for name in ("running", "starts"))
                    self._limits[found["name"]] = Limit(running, starts, float(found["seconds"] or 60))

    def slots(self, queue: str) -> int:
        """Return how many jobs of `queue` may run at once in this process."""
        return self._slots.get(queue, self._default) if not self.only or queue in self.only else 0

    def limit(self, queue: str) -> Limit | None:
        """Return the limit of `queue` over all processes, if it has one."""
        return self._limits.get(queue)

    def known(self, queues: Iterable[str] = ()) -> list[str]:
        """Return those of `queues` and of the declared ones that this process serves."""
        return sorted(name for name in {*queues, *self._slots, *self.only} if self.slots(name))


@dataclass
class Gate:
    """A limit during one claim, locked until its transaction ends; `room` is how many more jobs may start."""

    limit: Limit
    room: int
    row: JobGate | None = None

    def begin(self, now: datetime) -> None:
        """Count a job that starts now."""
        self.room -= 1
        if self.row is not None:
            self.row.began = began = [*self.row.began, now.timestamp()]
            full = len(began) == self.limit.starts
            self.row.full_until = datetime.fromtimestamp(began[0] + self.limit.seconds, UTC) if full else None


def is_running(job: Any) -> ColumnElement[bool]:
    """Return the condition for running jobs, with the status as a literal: else their partial index is not used."""
    running: ColumnElement[bool] = job.status == literal_column(f"'{JobStatus.PROCESSING}'")
    return running


async def enter_gate(session: AsyncSession, name: str, limit: Limit, mine: ColumnElement[bool], now: datetime) -> Gate:
    """Lock a limit and return its gate; while another process holds the lock, return one without room and do not wait.

    `mine` selects the jobs that the limit counts.
    """
    # SQLite has a single writer. The lock of PostgreSQL ends with the transaction; what is counted after it was taken
    # includes what its last holder has claimed.
    lock = select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))
    if session.get_bind().dialect.name == "postgresql" and not await session.scalar(lock):
        return Gate(limit, 0)
    gate = Gate(limit, UNLIMITED)
    if limit.running is not None:
        running = await session.scalar(select(func.count()).select_from(Job).where(is_running(Job), mine))
        gate.room = limit.running - (running or 0)
    if limit.starts is not None:
        row = await session.scalar(select(JobGate).where(JobGate.name == name)) or JobGate(name=name, began=[])
        row.began = [moment for moment in row.began if moment > now.timestamp() - limit.seconds]
        gate.room = min(gate.room, limit.starts - len(row.began))
        gate.row = row
        session.add(row)
    return gate


def queue_gate(queue: str) -> str:
    """Return the name of a queue's gate."""
    return f"queue {queue}"


def key_gate(key: str) -> str:
    """Return the name of a limit key's gate."""
    return f"key {key}"


async def pause_queue(*, db: AsyncSession, queue: str, paused: bool) -> bool:
    """Pause or resume `queue` in every process; return False if it was in that state already."""
    await insert_unless_taken(db, JobGate, {"name": queue_gate(queue), "began": []}, unique=("name",))
    row = (await db.scalars(select(JobGate).where(JobGate.name == queue_gate(queue)).with_for_update())).one()
    changed = row.paused != paused
    row.paused = paused
    return changed


async def purge_gates(*, db: AsyncSession) -> None:
    """Delete gates unused for longer than the longest period of a rate limit, except those of paused queues."""
    idle = JobGate.updated_at < db_now(-2 * MAX_LIMIT_SECONDS)  # twice, as `updated_at` is by a host's clock
    await db.execute(delete(JobGate).where(idle, JobGate.paused.is_(False)))


@dataclass(frozen=True)
class QueueState:
    """Unfinished jobs of a queue: all (`depth`), due and running ones, and when the oldest due one became due."""

    queue: str
    depth: int = 0
    due: int = 0
    running: int = 0
    oldest: datetime | None = None
    paused: bool = False


async def queue_states(*, db: AsyncSession, queues: Iterable[str] = ()) -> Sequence[QueueState]:
    """Return the state of every queue that has unfinished jobs or is paused, and of `queues`."""
    running = Job.status == JobStatus.PROCESSING
    due = and_(~running, Job.available_at <= db_now())
    counted = select(
        Job.queue,
        func.count().label("depth"),
        func.count(case((due, 1))).label("due"),
        func.count(case((running, 1))).label("running"),
        func.min(case((due, Job.available_at))).label("oldest"),
    )
    found = await db.execute(counted.where(Job.finished_at.is_(None)).group_by(Job.queue))
    rows = {row["queue"]: row for row in found.mappings()}
    gates = await db.scalars(select(JobGate.name).where(JobGate.paused))
    paused = {name.removeprefix(queue_gate("")) for name in gates}
    return [
        QueueState(**{"queue": name, "paused": name in paused, **rows.get(name, {})})
        for name in sorted({*rows, *paused, *queues})
    ]
