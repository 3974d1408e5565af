"""Run one claimed job, from its data to its outcome."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from structlog.contextvars import bound_contextvars

from app.core.db.engines import statements_may_take
from app.core.db.jobs import Job
from app.core.metrics import job_durations, job_runs
from app.core.services.background import pending_work
from app.core.services.failures import describe, jittered
from app.core.services.log import logger
from app.core.services.log.context import correlation
from app.core.services.queue.interface import BaseTask, PermanentFailure, RunningJob, enter_job
from app.core.services.queue.registry import RegisteredTask, UnknownTask, tasks
from app.core.services.queue.store import Outcome, completed, dead, failed, postponed

MAX_BACKOFF_SECONDS = 3600.0
MAX_POSTPONED = 24
"""Most postponements of a job: with their pauses about half a day, longer than any deployment takes."""

Write = Callable[[Outcome], Awaitable[bool]]


def backoff(task: type[BaseTask], attempts: int) -> timedelta:
    """Return the delay after `attempts` tries: doubled each time, at most an hour, with jitter."""
    return timedelta(seconds=jittered(min(task.backoff * 2 ** min(attempts - 1, 30), MAX_BACKOFF_SECONDS)))


async def run_task(task: RegisteredTask, arguments: dict[str, Any]) -> Any:
    """Run `task` once, for at most its `timeout`; return its result as JSON."""
    try:
        # The timeout of the task bounds its statements too.
        with statements_may_take(None):
            async with asyncio.timeout(task.cls.timeout) as timer:
                return await task.run(arguments)
    except TimeoutError as exc:
        if timer.expired():
            raise TimeoutError(f"{task.name} did not end within {task.cls.timeout:g} s") from exc
        raise


class ProcessLost(Exception):
    """The process of an isolated job ended before the job did."""


async def execute(job: Job, write: Write) -> None:
    """Run a claimed job and `write` its outcome; call it in an asyncio task and a context of the job's own."""
    enter_job(RunningJob(job.id, job.attempts, job.created_at))
    with _logged(job):
        begun = time.perf_counter()
        outcome, error = await _attempt(job)
        _count(job, outcome.values["status"], begun)
        if await write(outcome):
            _log(outcome, error)
        else:
            logger.warning("a job was taken away while it ran: it may run twice", attempt=job.attempts)


async def execute_alone(job: Job, write: Write, isolated: Callable[[], Awaitable[str | None]]) -> None:
    """Run a claimed job through `isolated`, which returns how its process ended, None if the job had not begun.

    The process stores the outcome. If it ended without one, the job ended it and is charged an attempt.
    """
    with _logged(job):
        begun = time.perf_counter()
        ending = await isolated()
        if ending is None:
            error = ProcessLost("no process could be started to run it alone")
            outcome = postponed(job, describe(error), backoff(BaseTask, job.attempts))
        else:
            error = ProcessLost(f"the process that ran it alone {ending}")
            task = BaseTask
            with suppress(UnknownTask):
                task = tasks.get(job.task).cls
            outcome = _failure(job, task, error)
        if await write(outcome):
            _count(job, outcome.values["status"], begun)
            _log(outcome, error)
        else:
            _count(job, "isolated", begun)  # the process has stored the outcome


def _count(job: Job, outcome: str, begun: float) -> None:
    task = tasks.label(job.task)
    job_runs.inc(task, outcome)
    job_durations.observe(time.perf_counter() - begun, task)


@contextmanager
def _logged(job: Job) -> Iterator[None]:
    """Add the ids of the job to every log line of the block."""
    # `event` is the text of a line.
    heard = {name.replace("event", "event_name"): value for name, value in job.heard.items() if value}
    if job.principal and job.principal.startswith("user:"):  # others are mail addresses
        heard["user"] = job.principal
    with correlation(job.request_id, job.conversation_id), bound_contextvars(job_id=job.id, task=job.task, **heard):
        yield


def _failure(job: Job, task: type[BaseTask], error: BaseException) -> Outcome:
    if isinstance(error, PermanentFailure) or job.attempts >= job.max_attempts:
        return dead(job, describe(error))
    return failed(job, describe(error), backoff(task, job.attempts))


async def _attempt(job: Job) -> tuple[Outcome, BaseException | None]:
    try:
        task, arguments = tasks.read(job.task, job.payload)
    except Exception as exc:
        # Another version of the service wrote the row: while it is rolled out, another process may understand it.
        if job.attempts >= MAX_POSTPONED:
            return dead(job, describe(exc)), exc
        return postponed(job, describe(exc), backoff(BaseTask, job.attempts)), exc
    running = asyncio.current_task()
    assert running is not None  # noqa: S101  a coroutine always runs in one
    try:
        with pending_work() as pending:
            try:
                result = await run_task(task, arguments)
            except Exception:
                await pending.finish()
                raise
            await pending.finish()
        return completed(job, result), None
    except asyncio.CancelledError as exc:
        if running.cancelling():
            raise
        error: BaseException = exc  # the task's own doing: a failure like any other
    except GeneratorExit:  # cut off
        raise
    except BaseException as exc:
        error = exc  # some would end the event loop
    return _failure(job, task.cls, error), error


def _log(outcome: Outcome, error: BaseException | None) -> None:
    attempt = outcome.job.attempts
    if error is None:
        logger.info("job completed", attempt=attempt)
    elif outcome.after is None:
        logger.error("job is dead", attempt=attempt, error=describe(error), exc_info=error)
    else:
        pause = round(outcome.after.total_seconds(), 1)
        logger.warning("job failed", attempt=attempt, error=describe(error), retry_in=pause)
