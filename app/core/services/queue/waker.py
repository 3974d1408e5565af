"""Telling whoever runs jobs that some are due, after the commit that stored them."""

from taskiq import AsyncBroker
from taskiq.kicker import AsyncKicker

from app.core.db.jobs import Job
from app.core.services.background import Background
from app.core.services.queue.broker import WAKE_TASK
from app.core.services.queue.runner import JobRunner


class JobWaker:
    """Wakes the runner of this process, or a worker through the broker where the runner is elsewhere.

    Called inside a commit, so it only sets a signal or starts a task. A wake that gets lost costs time, no job.
    """

    def __init__(self, runner: JobRunner, broker: AsyncBroker | None, background: Background) -> None:
        self._runner = runner
        self._broker = broker
        self._background = background
        self._ids: list[int] = []

    def __call__(self, job: Job) -> None:
        """`job` has been committed."""
        if self._runner.running:
            self._runner.wake()
        elif self._broker is not None:
            if not self._ids:
                self._background.spawn(
                    self._kick(self._broker), "no worker could be woken: its next look finds the job"
                )
            self._ids.append(job.id)

    async def _kick(self, broker: AsyncBroker) -> None:
        ids, self._ids = self._ids, []
        kicker: AsyncKicker[..., None] = AsyncKicker(WAKE_TASK, broker, labels={})
        await kicker.kiq(ids)
