"""What a task may know about its own run."""

from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

_running: ContextVar["RunningJob | None"] = ContextVar("running_job", default=None)


class PermanentFailure(Exception):
    """A task raises this when trying again cannot help: the job is dead at once, with this text as its reason."""


@dataclass(frozen=True)
class RunningJob:
    """The job being run; `attempt` starts at 1."""

    id: int
    attempt: int
    created_at: datetime
    _effects: Iterator[int] = field(default_factory=lambda: count(1), repr=False, compare=False)

    def effect_key(self) -> str:
        """A name for the next outward effect of this job, the same on every attempt: `12`, then `12-2`."""
        number = next(self._effects)
        return str(self.id) if number == 1 else f"{self.id}-{number}"


def current_job() -> RunningJob | None:
    """The job this code runs in, if any."""
    return _running.get()


def enter_job(job: RunningJob) -> None:
    """Mark this context as running `job`; the context belongs to that run alone."""
    _running.set(job)
