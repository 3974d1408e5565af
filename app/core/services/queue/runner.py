"""The runner: finds due jobs, runs them side by side, and stops in an orderly way."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from app.core.db.jobs import Job
from app.core.db.session import Database
from app.core.services.log import logger
from app.core.services.queue.errors import describe
from app.core.services.queue.execution import JobExecutor
from app.core.services.queue.store import JobStore

MAX_PAUSE_SECONDS = 30.0


class JobRunner:
    """Runs due jobs, at most `concurrency` at once.

    It looks when it is woken and every `poll` seconds: what nobody woke it for (a retry, a lease that ended,
    a lost message) is found by looking.
    """

    def __init__(self, database: Callable[[], Database], *, concurrency: int, poll: float, lease: float) -> None:
        self.store = JobStore(database, timedelta(seconds=lease))
        self._executor = JobExecutor(self.store, timedelta(seconds=lease))
        self._concurrency = concurrency
        self._poll = poll
        self._pause = poll
        self._wake = asyncio.Event()
        self._active: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def running(self) -> bool:
        """Whether this process runs jobs in the background."""
        return self._loop is not None

    def start(self) -> None:
        """Begin to run jobs in the background."""
        self._stopping = False
        self._loop = asyncio.get_running_loop().create_task(self._run(), context=Context())

    def wake(self) -> None:
        """Look for due jobs now."""
        self._wake.set()

    async def stop(self, grace: float) -> None:
        """Claim no more, wait up to `grace` seconds for running jobs, then cancel them and hand them back."""
        if self._loop is None:
            return
        self._stopping = True
        self._wake.set()
        finishing = asyncio.create_task(self._finish(self._loop))
        try:
            await asyncio.wait({finishing}, timeout=grace)
        finally:  # also when the wait itself is cut short
            if self._active:
                logger.warning("jobs running at the end of the grace time are handed back", count=len(self._active))
            tasks = (finishing, self._loop, *self._active)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._loop = None

    async def drain(self) -> int:
        """Run due jobs one after the other until none is due; how many ran. For tests and scripts."""
        ran = 0
        while jobs := await self.store.claim(1):
            for job in jobs:
                # No heartbeat: a test may have one database connection for everything.
                await asyncio.create_task(self._executor.run(job, heartbeat=False), context=Context())
                ran += 1
        return ran

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            free = self._concurrency - len(self._active)
            if not (free and await self._claim(free)):
                await self._rest()

    async def _finish(self, loop: "asyncio.Task[None]") -> None:
        await loop
        while self._active:
            await asyncio.wait(self._active)

    async def _claim(self, free: int) -> bool:
        """Start up to `free` jobs; whether there may be more."""
        try:
            jobs = await self.store.claim(free)
        except Exception as exc:
            self._fell_out(exc)
            return False
        if self._pause != self._poll:
            logger.info("the table of jobs can be read again")
            self._pause = self._poll
        for job in jobs:
            self._start(job)
        return bool(jobs)

    def _start(self, job: Job) -> None:
        task = asyncio.create_task(self._executor.run(job, heartbeat=True), context=Context())
        self._active.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if len(self._active) == self._concurrency:
            self._wake.set()  # there was no room: more may be due
        self._active.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("the outcome of a job could not be stored: it runs again after its lease", exc_info=error)

    def _fell_out(self, error: Exception) -> None:
        if self._pause == self._poll:  # once, not at every look
            trace = None if isinstance(error, SQLAlchemyError | OSError) else error
            logger.error("the table of jobs cannot be read: trying again", error=describe(error), exc_info=trace)
        self._pause = min(self._pause * 2, max(MAX_PAUSE_SECONDS, self._poll * 2))

    async def _rest(self) -> None:
        with suppress(TimeoutError):  # time to look again
            async with asyncio.timeout(self._pause):
                await self._wake.wait()
