"""Telling whoever runs jobs that some are due, after the commit that stored them."""

from taskiq import AsyncBroker
from taskiq.exceptions import SendTaskError
from taskiq.kicker import AsyncKicker

from app.core.db.jobs import Job
from app.core.process import Slot
from app.core.services.background import Background
from app.core.services.log import logger
from app.core.services.queue.broker import WAKE_TASK
from app.core.services.queue.errors import describe
from app.core.services.queue.runner import JobRunner

MAX_IDS = 100
"""In one message. A worker that is woken looks for everything that is due."""


class JobWaker:
    """Wakes the runner of this process, or a worker through the broker where the runner is elsewhere.

    Called inside a commit, so it only sets a signal or starts a task. A wake that gets lost costs time, no job.
    """

    def __init__(self, runner: JobRunner, broker: AsyncBroker | None, background: Background) -> None:
        self._runner = runner
        self._broker = broker
        self._background = background
        self._ids: list[int] = []
        self._kicking = False
        self._failed = False

    @property
    def runs_here(self) -> bool:
        """Whether this process runs the jobs."""
        return self._runner.running

    def __call__(self, job: Job) -> None:
        """`job` has been committed."""
        if self.runs_here:
            self._runner.wake()
        elif self._broker is not None:
            self._ids.append(job.id)
            if not self._kicking:
                self._kicking = True
                self._background.spawn(self._kick_all(self._broker), "no worker could be woken")

    async def _kick_all(self, broker: AsyncBroker) -> None:
        """One message at a time: what is committed meanwhile goes into the next together."""
        try:
            while self._ids:
                ids, self._ids = self._ids[:MAX_IDS], []
                await self._kick(broker, ids)
        finally:
            self._kicking = False

    async def _kick(self, broker: AsyncBroker, ids: list[int]) -> None:
        kicker: AsyncKicker[..., None] = AsyncKicker(WAKE_TASK, broker, labels={})
        try:
            await kicker.kiq(ids)
        except SendTaskError as exc:
            if not self._failed:  # once, not for every commit
                logger.error(
                    "no worker could be woken: jobs are found by looking", error=describe(exc.__cause__ or exc)
                )
            self._failed = True
        else:
            if self._failed:
                logger.info("workers can be woken again")
            self._failed = False


current_waker = Slot[JobWaker]()
"""The waker of this process."""
