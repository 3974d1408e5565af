"""The queue contract."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from app.core.exceptions import ConflictError, NotFoundError
from app.core.process import Slot
from app.core.services.queue.ticks import Schedule


class BaseTask(ABC):
    """A piece of work that runs after the transaction that pushed it has committed, at least once.

    `run` takes the pushed data as keyword arguments, validated against its annotations, and the dependencies of
    `app.core.deps` or any other `Annotated[..., Depends(...)]` that needs no request. What it returns, JSON, is the
    result of the job. `max_attempts` counts the first run; `timeout` and `backoff` (the first delay, doubled each
    time) are seconds. `__schedule__`, for tasks that run by the clock, is a cron line in UTC, an interval, or a
    `Cron` or `Every` that says more. `__former_names__` are names under which older versions stored its jobs.
    """

    __task_name__: ClassVar[str]
    __former_names__: ClassVar[tuple[str, ...]] = ()
    __schedule__: ClassVar[str | timedelta | Schedule | None] = None
    max_attempts: ClassVar[int] = 5
    backoff: ClassVar[float] = 1.0
    timeout: ClassVar[float] = 300.0

    run: Callable[..., Coroutine[Any, Any, Any]]

    @classmethod
    def _get_principal(cls, payload: Mapping[str, Any]) -> str | None:
        """Owner of the payload's personal data, as `user:7`, so that `erase_jobs` finds it; None for none."""
        return None


class JobNotFound(NotFoundError):
    """No job has this id: it was never committed, or is purged."""

    code = "job_not_found"
    default_detail = "The job was not found."


class JobNotReady(ConflictError):
    """The job has not finished."""

    code = "job_not_ready"
    default_detail = "The job has not finished."


class JobCancelled(ConflictError):
    """The job was cancelled before it started."""

    code = "job_cancelled"
    default_detail = "The job was cancelled."


class JobFailed(ConflictError):
    """The job was given up; `reason` is for developers, `detail` for whoever asks."""

    code = "job_failed"
    default_detail = "The job failed."

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class QueueServiceInterface(ABC):
    """Hands work to the runner and tells what became of it."""

    @abstractmethod
    async def push(
        self,
        task: type[BaseTask],
        data: Mapping[str, Any] | None = None,
        *,
        delay: timedelta | float | None = None,
        eta: datetime | None = None,
        dedup_key: str | None = None,
        durable: bool = True,
    ) -> int | None:
        """Store a run of `task` with the current unit of work and return the job's id.

        It happens if and only if that unit commits; outside one it is stored at once. A read-only unit stores it
        when it ends, so there is no id yet: None. Data that does not fit `task.run` raises TaskDataError.

        It runs as soon as it can, after `delay` (seconds), or at `eta` (with a time zone). While a job of `task`
        with this `dedup_key` is unfinished, nothing is stored and that job's id returned. `durable=False` skips the
        table for work that may be lost (tried once, after the commit, at once) and returns None.
        """

    @abstractmethod
    async def is_ready(self, job_id: int) -> bool:
        """Whether the job has finished, whatever the outcome; JobNotFound where there is none."""

    @abstractmethod
    async def get_result(self, job_id: int) -> Any:
        """The JSON that `run` returned; raises JobNotFound, JobNotReady, JobFailed or JobCancelled."""

    @abstractmethod
    async def wait_result(self, job_id: int, timeout: float = 0) -> Any:  # noqa: ASYNC109  0 means now
        """As `get_result`, after up to `timeout` seconds; JobNotReady is raised when they are over.

        Commit first: to wait inside an open unit of work is a RuntimeError, as the job may be waiting for its end.
        """

    @abstractmethod
    async def cancel(self, job_id: int) -> bool:
        """Cancel a job that waits, for its first run or its next, with the current unit of work.

        False where it is running, finished or unknown.
        """

    async def close(self) -> None:  # noqa: B027  most hold nothing
        """Release what the service holds. Called once, when the process ends."""


current_queue = Slot[QueueServiceInterface]()
"""The queue of this process."""
