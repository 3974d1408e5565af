"""The runner: finds due jobs, runs them side by side, extends their leases, and stops in an orderly way."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import timedelta
from functools import partial

from app.core.db.jobs import Job
from app.core.db.session import Database
from app.core.process import Slot
from app.core.services.failures import UNAVAILABLE, Outage, describe
from app.core.services.log import logger
from app.core.services.queue.execution import execute, execute_alone
from app.core.services.queue.isolation import Isolation
from app.core.services.queue.limits import Queues
from app.core.services.queue.store import JobStore, Outcome, handed_back

MAX_PAUSE_SECONDS = 2.0
"""Longest pause between two tries while the database is unreachable."""
ENDING_SECONDS = 1.0
"""Seconds for a cancelled run to end, and then for its outcome to be stored."""


class OutcomeWriter:
    """Writes outcomes, one transaction at a time; those that arrive meanwhile share the next one.

    It waits for an unreachable database: a job whose outcome is lost would run again.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._waiting: list[tuple[Outcome, asyncio.Future[bool]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._outage = Outage(
            "outcomes of jobs cannot be stored: trying again",
            "outcomes of jobs can be stored again",
            first=0.05,
            longest=MAX_PAUSE_SECONDS,
        )

    def write(self, outcome: Outcome) -> asyncio.Future[bool]:
        """Store `outcome`; the future is True once it is stored, False if the run no longer held its job."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((outcome, stored))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_all(), context=Context())
        return stored

    async def close(self, grace: float) -> None:
        """Wait up to `grace` seconds for what is not stored yet, then give up: jobs run again after their lease."""
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
            except UNAVAILABLE as exc:
                await asyncio.sleep(self._outage.failed(exc))
                continue
            self._waiting = self._waiting[len(batch) :]
            self._outage.over()

    async def _write(self, batch: Sequence[tuple[Outcome, asyncio.Future[bool]]]) -> None:
        try:
            held = await self._store.record([outcome for outcome, _ in batch])
        except UNAVAILABLE:
            raise
        except Exception as exc:
            if len(batch) > 1:  # one by one: an outcome that cannot be stored fails alone
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


class JobRunner:
    """Runs due jobs, as many of each queue at once as it has slots; suspects one at a time, in `isolation`.

    It claims jobs when it is woken, and polls every `poll` seconds: a retry, a lease that ended or a lost message
    wakes nobody.
    """

    def __init__(
        self,
        database: Callable[[], Database],
        *,
        queues: Queues,
        poll: float,
        lease: float,
        isolation: Isolation | None = None,
    ) -> None:
        self.store = JobStore(database, timedelta(seconds=lease), queues)
        self.queues = queues
        self._isolation = isolation
        self._writer = OutcomeWriter(self.store)
        self._poll = poll
        self._pause = poll
        self._outage = Outage(
            "the jobs table cannot be read: trying again",
            "the jobs table can be read again",
            first=0.05,
            longest=min(poll, MAX_PAUSE_SECONDS),
        )
        self._heartbeat = lease / 3
        self._wake = asyncio.Event()
        self._active: dict[Job, asyncio.Task[None]] = {}
        self._running: set[Job] = set()  # active jobs whose run has not ended
        self._full: set[str] = set()  # queues without a free slot since the last claim
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def running(self) -> bool:
        """True while this process runs jobs in the background."""
        return bool(self._loops)

    @property
    def alive(self) -> bool:
        """True until a loop of this runner has ended."""
        return not any(loop.done() for loop in self._loops)

    def start(self) -> None:
        """Begin to run jobs in the background."""
        self._stopping = False
        create = partial(asyncio.get_running_loop().create_task, context=Context())
        self._loops = [create(self._claim_loop()), create(self._heartbeat_loop())]

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
        """Run due jobs one after the other until none is due; return how many ran. For tests and scripts."""
        ran = 0
        while jobs := await self.store.claim(1):
            for job in jobs:
                # No heartbeat and no writer: a test may have one database connection for everything.
                await asyncio.create_task(execute(job, self.store.write), context=Context())
                ran += 1
        return ran

    async def _claim_loop(self) -> None:
        while not self._stopping:
            expected = self._wake.is_set()
            self._wake.clear()
            if not await self._claim(expected):
                with suppress(TimeoutError):  # time to poll
                    async with asyncio.timeout(self._pause):
                        await self._wake.wait()

    def _room(self, queue: str, suspect: bool) -> int:
        slots = min(self.queues.slots(queue), 1) if suspect else self.queues.slots(queue)
        return slots - sum(job.suspect == suspect and (suspect or job.queue == queue) for job in self._active)

    async def _claim(self, expected: bool) -> bool:
        """Claim and start jobs; return True to claim again at once. If none are `expected`, look before claiming."""
        before = len(self._active)
        try:
            # After a late heartbeat (SQLite is locked, a task blocks the loop) our own jobs look due: not those.
            own = [job.id for job in self._active]
            expected &= not self._full or any(self._room(queue, False) > 0 for queue in self._full)
            found = expected or await self.store.any_due(self._room, own)
            jobs = await self.store.claim(self._room, own) if found else []
        except Exception as exc:
            self._pause = self._outage.failed(exc)
            return False
        self._outage.over()
        self._pause = self._poll
        made_room = len(self._active) < before  # jobs ended meanwhile
        for job in jobs:
            self._start(job)
        self._full = {job.queue for job in self._active if self._room(job.queue, job.suspect) <= 0}
        return made_room and len(jobs) > 0

    def _start(self, job: Job) -> None:
        self._running.add(job)
        if job.suspect and self._isolation:
            stored = partial(self._running.discard, job)
            run = execute_alone(job, self._write, partial(self._isolation.run, job, stored))
        else:
            run = execute(job, self._write)
        task = asyncio.create_task(run, context=Context())
        self._active[job] = task
        task.add_done_callback(partial(self._ended, job))

    def _write(self, outcome: Outcome) -> asyncio.Future[bool]:
        self._running.discard(outcome.job)
        return self._writer.write(outcome)

    def _ended(self, job: Job, task: asyncio.Task[None]) -> None:
        if job.queue in self._full or job.limit_key or self.queues.limit(job.queue):
            self._wake.set()  # there was no room: more may be due
        if self._active.pop(job, None) and not task.cancelled() and (error := task.exception()):
            self._running.discard(job)
            logger.error("the outcome of a job could not be stored: it runs again after its lease", exc_info=error)

    async def _heartbeat_loop(self) -> None:
        """Extend all leases at once. A job whose outcome waits to be stored needs its lease as well."""
        while True:
            await asyncio.sleep(self._heartbeat)
            jobs = list(self._active)
            try:
                held = await self.store.extend(jobs) if jobs else set()
            except Exception as exc:  # whatever it is, without a heartbeat every job would be taken away
                logger.warning("the leases of jobs could not be extended", count=len(jobs), error=describe(exc))
                continue
            for job in self._running.intersection(jobs) - held:
                logger.error("the lease of a job was lost: its run here is ended", job_id=job.id, attempt=job.attempts)
                self._running.discard(job)  # not ours to hand back
                if task := self._active.get(job):  # none where it ended meanwhile without an outcome
                    task.cancel()

    async def _finish(self) -> None:
        await asyncio.wait(self._loops[:1])
        while self._active:
            await asyncio.wait(self._active.values())

    async def _end(self, finishing: asyncio.Task[None]) -> None:
        """Cancel what still runs and hand it back; a task that ignores this does not keep the process alive."""
        if self._running:
            logger.warning("jobs running at the end of the grace time are handed back", count=len(self._running))
        tasks = [finishing, *self._loops, *self._active.values()]
        self._active.clear()
        for task in tasks:
            task.cancel()
        _, stubborn = await asyncio.wait(tasks, timeout=ENDING_SECONDS)
        for task in stubborn:
            logger.error("a job ignores that it is cancelled: it is cut off")
            with suppress(Exception):  # whatever it raises at that
                task.get_coro().close()
            task.cancel()
        for job in self._running:
            self._writer.write(handed_back(job))
        self._running.clear()
        if self._isolation:
            await self._isolation.close()
        await self._writer.close(ENDING_SECONDS)


current_runner = Slot[JobRunner]()
"""The job runner of this process, started or not."""
