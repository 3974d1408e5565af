"""The open resources of this process, a typed slot each. `app.core.runtime` fills them; nothing here imports it."""

import time
from abc import ABC
from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic, Literal, TypeVar, cast

from app.core.exceptions import RuntimeNotOpen

T = TypeVar("T")

_EMPTY = object()


class ProcessService(ABC):  # noqa: B024  the interfaces that extend it are abstract
    """A service that is opened and closed with the process."""

    async def close(self) -> None:  # noqa: B027  most hold nothing
        """Release what the service holds. Called once, when the process ends."""


class Slot(Generic[T]):
    """Holds one resource while the application runs; calling it gives the resource.

    Call it at each use, and keep nothing: a test may exchange the resource.
    """

    def __init__(self, held: object = _EMPTY) -> None:
        self._held = held

    def __call__(self) -> T:
        """Return the resource; RuntimeNotOpen before the application has started."""
        if self._held is _EMPTY:
            raise RuntimeNotOpen("the application is not started: use its lifespan, or open_runtime() in a script")
        return cast(T, self._held)

    def saved(self) -> Callable[[], None]:
        """Return a function that restores the present state of the slot."""
        return partial(setattr, self, "_held", self._held)

    def __get__(self, owner: object, kind: type | None = None) -> T:
        return self()

    def __set__(self, owner: object, resource: T) -> None:
        self._held = resource


class Lifecycle:
    """State of a server process while it starts and stops; set by `kit run`."""

    starting: Mapping[str, Literal["ok", "failed"]] | None = None
    """State of each component while the process starts; None once it serves."""

    hold_until = 0.0
    """The moment until which requests wait for the end of the start, by `time.monotonic()`."""

    grace_ends: float | None = None
    """End of the grace time by `time.monotonic()`; None until the process is told to stop."""

    cancelling = False
    """True once the grace time is over and requests are being cancelled."""

    def grace(self, seconds: float) -> float:
        """Return the rest of the grace time in seconds; `seconds` if it has not begun."""
        return seconds if self.grace_ends is None else max(0.0, self.grace_ends - time.monotonic())


lifecycle = Lifecycle()
