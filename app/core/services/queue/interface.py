"""The queue contract: tasks, their schedules, the job a task runs in, and the service."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from app.core.exceptions import ConflictError, NotFoundError
from app.core.process import ProcessService, Slot

MAX_LIMIT_SECONDS = 86_400
MAX_PRIORITY = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CATCHES_UP = ", what was missed once"

_running: ContextVar["RunningJob | None"] = ContextVar("running_job", default=None)


@dataclass(frozen=True)
class Cron:
    """A cron line of five fields, read on the clock of a time zone.

    A time skipped by daylight saving runs right after the change, one that comes twice counts the first time.
    A line whose minute or hour begins with `*` is read minute by minute instead, as by Debian's cron.
    `catch_up`: ticks missed while no scheduler ran are run once, as soon as one does.
    """

    line: str
    tz: str = "UTC"
    catch_up: bool = False

    def __str__(self) -> str:
        return f"{self.line} {self.tz}{_CATCHES_UP if self.catch_up else ''}"

    def next_after(self, moment: datetime) -> datetime:
        """Return the first tick after `moment`; a ValueError says what is wrong with the line or the zone."""
        if len(self.line.split()) != 5:
            raise ValueError("a cron line has five fields")
        try:
            zone = ZoneInfo(self.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError(f"there is no time zone {self.tz!r}") from exc
        try:
            ticks = CronSim(self.line, moment.astimezone(zone))
            # On the second turn of a repeated hour CronSim begins with the first.
            following = next((tick for each in ticks if (tick := each.astimezone(UTC)) > moment), None)
        except CronSimError as exc:
            raise ValueError(str(exc)) from exc
        if following is None:
            raise ValueError("this never comes")
        return following


@dataclass(frozen=True)
class Every:
    """An interval of whole seconds, counted from 1970 in UTC, so that all schedulers agree.

    `catch_up`: ticks missed while no scheduler ran are run once, as soon as one does.
    """

    interval: timedelta
    catch_up: bool = False

    def __str__(self) -> str:
        return f"every {self.interval}{_CATCHES_UP if self.catch_up else ''}"

    def next_after(self, moment: datetime) -> datetime:
        """Return the first tick after `moment`; a ValueError says what is wrong with the interval."""
        if self.interval < timedelta(seconds=1) or self.interval.microseconds:
            raise ValueError("an interval is whole seconds, at least one")
        try:
            return _EPOCH + ((moment - _EPOCH) // self.interval + 1) * self.interval
        except OverflowError as exc:
            raise ValueError("this never comes") from exc


Schedule: TypeAlias = Cron | Every


def schedule_of(declared: str | timedelta | Schedule) -> Schedule:
    """Return what `__schedule__` declares; a plain cron line or interval is in UTC and skips missed ticks."""
    if isinstance(declared, Cron | Every):
        return declared
    return Cron(declared) if isinstance(declared, str) else Every(declared)


@dataclass(frozen=True)
class Limit:
    """Limit over all processes: at most `running` jobs at once, at most `starts` started within any `seconds`.

    A retry counts as a start.
    """

    running: int | None = None
    starts: int | None = None
    seconds: float = 60.0

    def __post_init__(self) -> None:
        given = [number for number in (self.running, self.starts) if number is not None]
        if not given or min(given) < 1:
            raise ValueError("a limit needs `running` or `starts`, each at least 1")
        if (self.starts or 0) > 1000 or not 0 < self.seconds <= MAX_LIMIT_SECONDS:
            raise ValueError("a limit allows at most 1000 `starts`, and `seconds` of at most a day")


class BaseTask(ABC):
    """A piece of work that runs after the transaction that pushed it has committed, at least once.

    `run` takes the pushed data as keyword arguments, validated against its annotations, and the dependencies of
    `app.core.deps` or any other `Annotated[..., Depends(...)]` that needs no request. What it returns, JSON, is the
    result of the job. `max_attempts` counts the first run; `timeout` and `backoff` (the first delay, doubled each
    time) are seconds. Jobs wait in `queue` and begin by `priority`, from 100, the first, to -100. `limit` bounds those
    that share a key, of `_get_limit_key`: by default all of the task. `__schedule__`, for tasks that run by the clock,
    is a cron line in UTC, an interval, or a `Cron` or `Every` that says more. `__former_names__` are names under which
    older versions stored its jobs.
    """

    __task_name__: ClassVar[str]
    __former_names__: ClassVar[tuple[str, ...]] = ()
    __schedule__: ClassVar[str | timedelta | Schedule | None] = None
    queue: ClassVar[str] = "default"
    priority: ClassVar[int] = 0
    limit: ClassVar[Limit | None] = None
    max_attempts: ClassVar[int] = 5
    backoff: ClassVar[float] = 1.0
    timeout: ClassVar[float] = 300.0

    run: Callable[..., Coroutine[Any, Any, Any]]

    @classmethod
    def _get_principal(cls, payload: Mapping[str, Any]) -> str | None:
        """Owner of the payload's personal data, as `user:7`, so that `erase_jobs` finds it; None for none."""
        return None

    @classmethod
    def _get_limit_key(cls, payload: Mapping[str, Any]) -> str | None:
        """Return the key that shares `limit`, such as `stripe 7`, of at most 255 characters; None for no limit."""
        return cls.__task_name__


def checked_priority(priority: int) -> int:
    """Return the priority; raises ValueError if it is out of range."""
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise ValueError(f"a priority must be from -{MAX_PRIORITY} to {MAX_PRIORITY}")
    return priority


class PermanentFailure(Exception):
    """Raised by a task when a retry cannot help: the job is dead at once, with this text as its reason."""


@dataclass(frozen=True)
class RunningJob:
    """The job being run; `attempt` starts at 1."""

    id: int
    attempt: int
    created_at: datetime
    _effects: Iterator[int] = field(default_factory=lambda: count(1), repr=False, compare=False)

    def effect_key(self) -> str:
        """Return an idempotency key for the next outward effect, the same on every attempt: `12`, then `12-2`."""
        number = next(self._effects)
        return str(self.id) if number == 1 else f"{self.id}-{number}"


def current_job() -> RunningJob | None:
    """Return the job this code runs in, if any."""
    return _running.get()


def enter_job(job: RunningJob) -> None:
    """Mark this context as running `job`; the context belongs to that run alone."""
    _running.set(job)


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
    """The job is dead; `reason` is for developers, `detail` for clients."""

    code = "job_failed"
    default_detail = "The job failed."

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class QueueServiceInterface(ProcessService):
    """Stores jobs for the runner, and reports their outcomes."""

    @abstractmethod
    async def push(
        self,
        task: type[BaseTask],
        data: Mapping[str, Any] | None = None,
        *,
        delay: timedelta | float | None = None,
        eta: datetime | None = None,
        dedup_key: str | None = None,
        priority: int | None = None,
        durable: bool = True,
    ) -> int | None:
        """Store a run of `task` with the current unit of work and return the job's id.

        It happens if and only if that unit commits; outside one it is stored at once. A read-only unit stores it
        when it ends, so there is no id yet: None. Data that does not fit `task.run` raises TaskDataError.

        It runs as soon as it can, after `delay` (seconds), or at `eta` (with a time zone). While a job of `task`
        with this `dedup_key` is unfinished, nothing is stored and that job's id returned. `priority` replaces that of
        the task. `durable=False` skips the table for work that may be lost (tried once, after the commit, at once) and
        returns None.
        """

    @abstractmethod
    async def is_ready(self, job_id: int) -> bool:
        """Return whether the job has finished, with any outcome; JobNotFound if there is none."""

    @abstractmethod
    async def get_result(self, job_id: int) -> Any:
        """Return the JSON that `run` returned; raises JobNotFound, JobNotReady, JobFailed or JobCancelled."""

    @abstractmethod
    async def wait_result(self, job_id: int, timeout: float = 0) -> Any:  # noqa: ASYNC109  0 means now
        """Return what `get_result` does, after up to `timeout` seconds; then JobNotReady is raised.

        Commit first: to wait inside an open unit of work is a RuntimeError, as the job may be waiting for its end.
        """

    @abstractmethod
    async def cancel(self, job_id: int) -> bool:
        """Cancel a job that waits, for its first run or its next, with the current unit of work.

        False where it is running, finished or unknown.
        """


current_queue = Slot[QueueServiceInterface]()
"""The queue of this process."""
