"""What the benchmark of jobs has run; a worker loads this module by name."""

import json
import os
import time
from pathlib import Path

from app.core.deps import listener, queued
from app.core.services.events import BaseEvent, ListenedEvent
from app.core.services.queue import BaseTask

_begun: dict[Path, tuple[float, int]] = {}


@queued
class Tally(BaseTask):
    """Counts its runs; the last of `total` reports how long it took since the first, and in which process."""

    __task_name__ = "benchmarks.tally"

    async def run(self, total: int, report: Path) -> None:
        """Count one."""
        begun, count = _begun.get(report, (time.perf_counter(), 0))
        _begun[report] = begun, count + 1
        if count + 1 == total:
            found = {"per_second": total / (time.perf_counter() - begun), "pid": os.getpid()}
            unfinished = report.with_suffix(".part")
            unfinished.write_text(json.dumps(found))
            unfinished.rename(report)


@queued
class Stamp(BaseTask):
    """Notes when it runs."""

    __task_name__ = "benchmarks.stamp"

    async def run(self, report: Path) -> None:
        """Add the time as a line."""
        now = time.time()
        with report.open("a") as lines:
            lines.write(f"{now}\n")


@queued
class Nothing(BaseTask):
    """Does nothing."""

    __task_name__ = "benchmarks.nothing"

    async def run(self) -> None:
        """Do nothing."""


class Measured(BaseEvent):
    """Heard by one durable listener."""

    number: int


@listener(Measured)
async def hear(event: ListenedEvent[Measured]) -> None:
    """Do nothing."""
