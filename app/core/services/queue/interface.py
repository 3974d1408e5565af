"""The queue contract."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, ClassVar


class BaseTask(ABC):
    """A piece of work that runs after the transaction that pushed it has committed, at least once.

    `run` takes the pushed data as keyword arguments, validated against its annotations.
    `max_attempts` counts the first run; `timeout` and `backoff` (the first delay, doubled each time) are seconds.
    `__schedule__` is a cron line in UTC or an interval, for tasks that run by the clock.
    """

    __task_name__: ClassVar[str]
    __schedule__: ClassVar[str | timedelta | None] = None
    max_attempts: ClassVar[int] = 5
    backoff: ClassVar[float] = 1.0
    timeout: ClassVar[float] = 300.0

    run: Callable[..., Coroutine[Any, Any, Any]]


class QueueServiceInterface(ABC):
    """Hands work to the runner."""

    @abstractmethod
    async def push(
        self, task: type[BaseTask], data: Mapping[str, Any] | None = None, *, durable: bool = True
    ) -> int | None:
        """Store a run of `task` with the current unit of work and return the job's id.

        It happens if and only if that unit commits; outside one it is stored at once. `durable=False`
        skips the table for work that may be lost (tried once, after the commit) and returns None. A read-only
        unit stores it when it ends, so there is no id yet: None. Data that does not fit `task.run` raises
        TaskDataError.
        """
