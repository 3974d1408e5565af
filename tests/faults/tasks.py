"""Tasks for processes that get killed; a worker loads this module by name."""

import asyncio
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from app.core.deps import queued
from app.core.services.queue import BaseTask, current_job
from tests.faults.journal import note


@queued
class Unlucky(BaseTask):
    """Notes each attempt; all but the last wait to be killed."""

    __task_name__ = "faults.unlucky"

    async def run(self, folder: Path, lucky_attempt: int = 2) -> None:
        """Write `<attempt>` into `folder`, and `done` in the lucky attempt."""
        job = current_job()
        assert job is not None
        (folder / str(job.attempt)).write_text(str(os.getpid()))
        if job.attempt < lucky_attempt:
            await asyncio.sleep(60)
        (folder / "done").touch()


@queued
class Poison(BaseTask):
    """Ends the process it runs in, after a moment in which others begin."""

    __task_name__ = "faults.poison"
    max_attempts = 2
    backoff = 0.1

    async def run(self, ending: str) -> None:
        """End by `exit`, by a signal of this name, or by memory."""
        job = current_job()
        assert job is not None
        note("poisoned", job.id, job.attempt, os.getpid())
        await asyncio.sleep(0.3)
        if ending == "exit":
            os._exit(0)
        if ending == "memory":
            with open("/proc/self/oom_score_adj") as score:  # noqa: ASYNC230  a file of the kernel
                note("expendable", score.read().strip())
            ending = "SIGKILL"  # as the kernel does
        os.kill(os.getpid(), signal.Signals[ending])


@queued
class Healthy(BaseTask):
    """Takes its time; loses nothing by a neighbour that ends its process."""

    __task_name__ = "faults.healthy"
    max_attempts = 1

    async def run(self, seconds: float = 1.0) -> None:
        """Wait, and note that it is done."""
        job = current_job()
        assert job is not None
        note("begun", job.id)
        await asyncio.sleep(seconds)
        note("healthy", job.id)


@queued
class Pulse(BaseTask):
    """Runs by the clock."""

    __task_name__ = "faults.pulse"
    __schedule__ = timedelta(seconds=1)

    async def run(self) -> None:
        """Nothing to do."""


@queued
class Work(BaseTask):
    """Takes its time, and notes the beginning and the end of each attempt."""

    __task_name__ = "faults.work"
    max_attempts = 1000  # each kill may cost one

    async def run(self, seconds: float = 0.0) -> None:
        """Work for `seconds`."""
        job = current_job()
        assert job is not None
        note("started", job.id, job.attempt, os.getpid())
        await asyncio.sleep(seconds)
        note("done", job.id, job.attempt, os.getpid())


@queued
class Mark(BaseTask):
    """Leaves a mark that tells it from all others."""

    __task_name__ = "faults.mark"
    max_attempts = 1000  # each kill may cost one

    async def run(self, name: str) -> None:
        """Note the name and the time, by the clock that all processes of a machine share."""
        note("marked", name, time.monotonic())
