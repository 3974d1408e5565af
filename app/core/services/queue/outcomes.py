"""What becomes of a run, and the writer that puts it into the table of jobs."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.services.log import logger
from app.core.services.queue.errors import describe

if TYPE_CHECKING:
    from app.core.services.queue.store import JobStore

AWAY = (OperationalError, InterfaceError, PoolTimeout, OSError)
"""What a database that cannot be reached now raises."""

_MAX_PAUSE_SECONDS = 2.0

_random = random.SystemRandom()


@dataclass(frozen=True)
class Outcome:
    """Columns to write into a job's row, as long as the row is still held by the run that `job` was claimed for."""

    job: Job
    values: Mapping[str, Any]


def completed(job: Job, result: Any = None) -> Outcome:
    """The job is done."""
    return Outcome(job, _ended(JobStatus.COMPLETED, None) | {"result": result})


def dead(job: Job, error: str) -> Outcome:
    """The job is given up."""
    return Outcome(job, _ended(JobStatus.DEAD, error))


def failed(job: Job, error: str, delay: timedelta) -> Outcome:
    """The attempt failed; the next may start after `delay`."""
    return Outcome(job, {"status": JobStatus.FAILED, "available_at": utcnow() + delay, "last_error": error})


def postponed(job: Job, error: str, delay: timedelta) -> Outcome:
    """This process cannot run the job, so the attempt is given back; the pauses grow with `attempts`."""
    return Outcome(job, {**failed(job, error, delay).values, "max_attempts": job.max_attempts + 1})


def handed_back(job: Job) -> Outcome:
    """This process stops. The interrupted attempt does not count."""
    values = {"status": JobStatus.PENDING, "available_at": utcnow(), "attempts": job.attempts - 1}
    return Outcome(job, values)


def _ended(status: JobStatus, error: str | None) -> dict[str, Any]:
    return {"status": status, "finished_at": utcnow(), "last_error": error}


class OutcomeWriter:
    """Writes outcomes one transaction after the other; what comes while one is under way goes into the next together.

    A database that is away is waited for: a job whose outcome was forgotten would run again.
    """

    def __init__(self, store: "JobStore") -> None:
        self._store = store
        self._waiting: list[tuple[Outcome, asyncio.Future[bool]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._pause = 0.0

    def write(self, outcome: Outcome) -> "asyncio.Future[bool]":
        """Store `outcome`: True once it is stored, False where the run no longer held its job."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((outcome, stored))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_all(), context=Context())
        return stored

    async def close(self, grace: float) -> None:
        """Wait up to `grace` seconds for what is not stored yet, then give it up: it runs again after its lease."""
        if self._writing is None:
            return
        await asyncio.wait({self._writing}, timeout=grace)
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)
        if lost := [outcome.job.id for outcome, _ in self._waiting]:
            logger.error("outcomes of jobs could not be stored: they run again after their lease", ids=lost)
        for _, stored in self._waiting:
            stored.cancel()
        self._waiting = []

    async def _write_all(self) -> None:
        while self._waiting:
            batch = list(self._waiting)
            try:
                await self._write(batch)
            except AWAY as exc:
                await self._rest(exc)
                continue
            self._waiting = self._waiting[len(batch) :]
            if self._pause:
                logger.info("outcomes of jobs can be stored again")
                self._pause = 0.0

    async def _write(self, batch: Sequence[tuple[Outcome, "asyncio.Future[bool]"]]) -> None:
        try:
            held = await self._store.record([outcome for outcome, _ in batch])
        except AWAY:
            raise
        except Exception as exc:
            if len(batch) > 1:  # what cannot be stored is alone with its failure
                for item in batch:
                    await self._write([item])
            else:
                _, stored = batch[0]
                if not stored.done():
                    stored.set_exception(exc)
            return
        for outcome, stored in batch:
            if not stored.done():
                stored.set_result(outcome.job in held)

    async def _rest(self, error: Exception) -> None:
        if not self._pause:  # once, not at every try
            logger.error("outcomes of jobs cannot be stored: trying again", error=describe(error))
        self._pause = min(self._pause * 2 or 0.05, _MAX_PAUSE_SECONDS)
        await asyncio.sleep(self._pause * _random.uniform(0.5, 1.0))
