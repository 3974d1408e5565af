"""Running one claimed job, from its data to its outcome."""

import asyncio
import random
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from app.core.db.jobs import Job
from app.core.services.log import logger
from app.core.services.log.context import correlation
from app.core.services.queue.context import PermanentFailure, RunningJob, enter_job
from app.core.services.queue.errors import describe
from app.core.services.queue.interface import BaseTask
from app.core.services.queue.registry import RegisteredTask, UnknownTask, tasks
from app.core.services.queue.store import JobStore

MAX_BACKOFF_SECONDS = 3600.0

_random = random.SystemRandom()


def backoff(task: type[BaseTask], attempts: int) -> timedelta:
    """How long to wait after `attempts` tries: doubled each time, at most an hour, spread by a quarter either way."""
    seconds = min(task.backoff * 2 ** min(attempts - 1, 30), MAX_BACKOFF_SECONDS)
    return timedelta(seconds=seconds * _random.uniform(0.75, 1.25))


async def run_task(task: RegisteredTask, payload: dict[str, Any]) -> None:
    """Run `task` once, for at most its `timeout`."""
    arguments = task.load(payload)
    try:
        async with asyncio.timeout(task.cls.timeout) as timer:
            await task.cls().run(**arguments)
    except TimeoutError as exc:
        if timer.expired():
            raise TimeoutError(f"{task.name} did not end within {task.cls.timeout:g} s") from exc
        raise


class JobExecutor:
    """Runs claimed jobs. Call it in an asyncio task and a context of the job's own."""

    def __init__(self, store: JobStore, lease: timedelta) -> None:
        self._store = store
        self._beat = lease.total_seconds() / 3

    async def run(self, job: Job, *, heartbeat: bool) -> None:
        """Run `job` and record the outcome; `heartbeat` keeps the lease while it runs."""
        enter_job(RunningJob(job.id, job.attempts, job.created_at))
        with correlation(job.request_id, job.conversation_id), bound_contextvars(job_id=job.id, task=job.task):
            error = await self._attempt(job, heartbeat)
            await self._record(job, error)

    async def _attempt(self, job: Job, heartbeat: bool) -> BaseException | None:
        running = asyncio.current_task()
        assert running is not None  # noqa: S101  a coroutine always runs in one
        beat = asyncio.create_task(self._keep_lease(job, running)) if heartbeat else None
        try:
            await run_task(tasks.get(job.task), job.payload)
        except asyncio.CancelledError as exc:
            if not running.cancelling():
                return exc  # the task's own doing: a failure like any other
            await self._store.release(job)
            raise
        except Exception as exc:
            return exc
        finally:
            # Ended before the outcome is written: a heartbeat after it would find the lease gone.
            if beat:
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)
        return None

    async def _record(self, job: Job, error: BaseException | None) -> None:
        if error is None:
            stored = await self._store.complete(job)
            logger.info("job completed", attempt=job.attempts)
        elif isinstance(error, PermanentFailure) or job.attempts >= job.max_attempts:
            stored = await self._store.bury(job, describe(error))
            logger.error("job is dead", attempt=job.attempts, error=describe(error), exc_info=error)
        else:
            delay = backoff(_class_of(job), job.attempts)
            stored = await self._store.retry(job, describe(error), delay)
            logger.warning(
                "job failed", attempt=job.attempts, error=describe(error), retry_in=round(delay.total_seconds(), 1)
            )
        if not stored:
            logger.warning("the lease of a job was lost before its end: it may run twice", attempt=job.attempts)

    async def _keep_lease(self, job: Job, running: "asyncio.Task[None]") -> None:
        while True:
            await asyncio.sleep(self._beat)
            try:
                held = await self._store.extend(job)
            except (SQLAlchemyError, OSError) as exc:
                logger.warning("the lease of a job could not be extended", attempt=job.attempts, error=describe(exc))
                continue
            if not held:
                logger.error("the lease of a job was lost: its run here is ended", attempt=job.attempts)
                running.cancel()
                return


def _class_of(job: Job) -> type[BaseTask]:
    try:
        return tasks.get(job.task).cls
    except UnknownTask:
        return BaseTask  # its defaults: another version of the service may know the task
