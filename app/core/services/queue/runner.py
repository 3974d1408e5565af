"""The runner: finds due jobs, runs them side by side, keeps their leases, and stops in an orderly way."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from datetime import timedelta
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from app.core.db.jobs import Job
from app.core.db.session import Database
from app.core.process import Slot
from app.core.services.log import logger
from app.core.services.queue.errors import describe
from app.core.services.queue.execution import execute
from app.core.services.queue.outcomes import Outcome, OutcomeWriter, handed_back
from app.core.services.queue.store import JobStore

MAX_PAUSE_SECONDS = 30.0
ENDING_SECONDS = 1.0
"""What a cancelled run has to end, and after it what is to be stored."""


class JobRunner:
    """Runs due jobs, at most `concurrency` at once.

    It looks when it is woken and every `poll` seconds: what nobody woke it for (a retry, a lease that ended,
    a lost message) is found by looking.
    """

    def __init__(self, database: Callable[[], Database], *, concurrency: int, poll: float, lease: float) -> None:
        self.store = JobStore(database, timedelta(seconds=lease))
        self._writer = OutcomeWriter(self.store)
        self._concurrency = concurrency
        self._poll = poll
        self._pause = poll
        self._beat = lease / 3
        self._wake = asyncio.Event()
        self._active: dict[Job, asyncio.Task[None]] = {}
        self._running: set[Job] = set()  # those of the active whose run has not ended
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def running(self) -> bool:
        """Whether this process runs jobs in the background."""
        return bool(self._loops)

    def start(self) -> None:
        """Begin to run jobs in the background."""
        self._stopping = False
        create = partial(asyncio.get_running_loop().create_task, context=Context())
        self._loops = [create(self._look()), create(self._keep_leases())]

    def wake(self) -> None:
        """Look for due jobs now."""
        self._wake.set()

    async def stop(self, grace: float) -> None:
        """Claim no more, wait up to `grace` seconds for running jobs, then cancel them and hand them back."""
        if not self._loops:
            return
        self._stopping = True
        self._wake.set()
        finishing = asyncio.create_task(self._finish())
        try:
            await asyncio.wait({finishing}, timeout=grace)
        finally:  # also when the wait itself is cut short
            await self._end(finishing)
            self._loops = []

    async def drain(self) -> int:
        """Run due jobs one after the other until none is due; how many ran. For tests and scripts."""
        ran = 0
        while jobs := await self.store.claim(1):
            for job in jobs:
                # No heartbeat and no writer: a test may have one database connection for everything.
                await asyncio.create_task(execute(job, self.store.write), context=Context())
                ran += 1
        return ran

    async def _look(self) -> None:
        more = False
        while not self._stopping:
            expected = more or self._wake.is_set()
            self._wake.clear()
            free = self._concurrency - len(self._active)
            more = free > 0 and await self._claim(free, expected)
            if not more:
                await self._rest()

    async def _claim(self, free: int, expected: bool) -> bool:
        """Start up to `free` jobs; whether there may be more. Where none is expected it only looks first."""
        try:
            # Where heartbeats came late (SQLite is locked, a task blocks the loop) our own jobs look due: not those.
            own = [job.id for job in self._active]
            jobs = await self.store.claim(free, own) if expected or await self.store.any_due(own) else []
        except Exception as exc:
            self._fell_out(exc)
            return False
        if self._pause != self._poll:
            logger.info("the table of jobs can be read again")
            self._pause = self._poll
        for job in jobs:
            self._start(job)
        return len(jobs) == free

    def _start(self, job: Job) -> None:
        self._running.add(job)
        task = asyncio.create_task(execute(job, self._write), context=Context())
        self._active[job] = task
        task.add_done_callback(partial(self._ended, job))

    def _write(self, outcome: Outcome) -> "asyncio.Future[bool]":
        self._running.discard(outcome.job)
        return self._writer.write(outcome)

    def _ended(self, job: Job, task: "asyncio.Task[None]") -> None:
        if len(self._active) == self._concurrency:
            self._wake.set()  # there was no room: more may be due
        if self._active.pop(job, None) and not task.cancelled() and (error := task.exception()):
            self._running.discard(job)
            logger.error("the outcome of a job could not be stored: it runs again after its lease", exc_info=error)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            try:
                await self._extend()
            except Exception as exc:  # whatever it is, without a heartbeat every job would be taken away
                logger.warning("the leases of jobs could not be extended", count=len(self._active), error=describe(exc))

    async def _extend(self) -> None:
        """Lengthen every lease at once. A job whose outcome waits to be stored needs its lease as well."""
        jobs = list(self._active)
        held = await self.store.extend(jobs) if jobs else set()
        for job in jobs:
            if job not in held and job in self._running:
                logger.error("the lease of a job was lost: its run here is ended", job_id=job.id, attempt=job.attempts)
                self._running.discard(job)  # not ours to hand back
                self._active[job].cancel()

    async def _finish(self) -> None:
        await asyncio.wait(self._loops[:1])
        while self._active:
            await asyncio.wait(self._active.values())

    async def _end(self, finishing: "asyncio.Task[None]") -> None:
        """End whatever still runs; what ignores that does not keep the process from ending."""
        if self._running:
            logger.warning("jobs running at the end of the grace time are handed back", count=len(self._running))
        tasks = [finishing, *self._loops, *self._active.values()]
        self._active.clear()
        for task in tasks:
            task.cancel()
        _, stubborn = await asyncio.wait(tasks, timeout=ENDING_SECONDS)
        for task in stubborn:
            logger.error("a job ignores that it is cancelled: it is cut off")
            with suppress(Exception):  # whatever it says to that
                task.get_coro().close()
            task.cancel()
        for job in self._running:
            self._writer.write(handed_back(job))
        self._running.clear()
        await self._writer.close(ENDING_SECONDS)

    def _fell_out(self, error: Exception) -> None:
        if self._pause == self._poll:  # once, not at every look
            trace = None if isinstance(error, SQLAlchemyError | OSError) else error
            logger.error("the table of jobs cannot be read: trying again", error=describe(error), exc_info=trace)
        self._pause = min(self._pause * 2, max(MAX_PAUSE_SECONDS, self._poll * 2))

    async def _rest(self) -> None:
        with suppress(TimeoutError):  # time to look again
            async with asyncio.timeout(self._pause):
                await self._wake.wait()


current_runner = Slot[JobRunner]()
"""The job runner of this process, started or not."""
