"""The processes beside the app: started, killed, stopped for real."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.core.configs import PROJECT_ROOT
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime, runtime
from tests.faults.tasks import Pulse, Unlucky

WORKER = ("worker", "app.worker:broker", "tests.faults.tasks", "--workers", "1")
SCHEDULER = ("scheduler", "app.worker:scheduler", "tests.faults.tasks")


@pytest.fixture
def kit(app: FastAPI) -> Runtime:
    """What the application holds open."""
    return runtime()


@pytest.fixture
def served(kit: Runtime) -> None:
    """A worker of its own needs Redis."""
    if kit.redis is None:
        pytest.skip("needs Redis")


@asynccontextmanager
async def process(*arguments: str, **settings: str) -> AsyncIterator[Process]:
    """taskiq with `arguments` and `settings`, in a group of its own that does not outlive the block."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskiq", *arguments),
        cwd=PROJECT_ROOT,
        env=os.environ | settings,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        kill(started)
        await started.communicate()


def kill(started: Process) -> None:
    """`kill -9` for the process and all it started."""
    try:
        os.killpg(started.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended by itself


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 120) -> None:
    """Wait for `condition`."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  another process is waited for
            await asyncio.sleep(0.05)


def exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return os.path.exists(path)  # noqa: ASYNC240  a look at a local file

    return check


def of(database: Database) -> dict[str, str]:
    """Settings of a process on the test's database, with a short lease."""
    return {
        "DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
        "JOBS_LEASE_SECONDS": "1",
        "JOBS_POLL_SECONDS": "0.2",
        "MODULES": "app.*,tests.faults",  # what ran when its process was lost runs in a process of its own
    }


async def jobs(database: Database, task: str) -> list[Job]:
    async with database.session_scope(read_only=True) as session:
        return list((await session.scalars(select(Job).where(Job.task == task).order_by(Job.id))).all())


@pytest.mark.usefixtures("served")
class TestWorker:
    async def test_a_job_whose_worker_was_killed_is_done_by_the_next(
        self, kit: Runtime, committed: Database, tmp_path: Path
    ) -> None:
        async with process(*WORKER, **of(committed)) as first:
            await kit.queue.push(Unlucky, {"folder": tmp_path})
            await until(exists(tmp_path / "1"))
            kill(first)
        assert [job.status for job in await jobs(committed, "faults.unlucky")] == [JobStatus.PROCESSING]
        async with process(*WORKER, **of(committed)):
            await until(exists(tmp_path / "done"))

            async def completed() -> bool:
                return [job.status for job in await jobs(committed, "faults.unlucky")] == [JobStatus.COMPLETED]

            await until(completed)
        assert sorted(os.listdir(tmp_path)) == ["1", "2", "done"]

    async def test_a_worker_that_is_told_to_stop_hands_its_job_back(
        self, kit: Runtime, committed: Database, tmp_path: Path
    ) -> None:
        settings = of(committed) | {"JOBS_LEASE_SECONDS": "60", "SHUTDOWN_GRACE_SECONDS": "0"}
        async with process(*WORKER, **settings) as worker:
            await kit.queue.push(Unlucky, {"folder": tmp_path})
            await until(exists(tmp_path / "1"))
            worker.send_signal(signal.SIGTERM)
            await asyncio.wait_for(worker.communicate(), 120)
            (job,) = await jobs(committed, "faults.unlucky")
            assert (worker.returncode, job.status, job.attempts) == (0, JobStatus.PENDING, 0)


@pytest.mark.usefixtures("served")
class TestScheduler:
    async def test_it_stores_ticks_and_stops_when_told(self, committed: Database) -> None:
        async with process(*SCHEDULER, **of(committed)) as scheduler:

            async def ticked() -> bool:
                return len(await jobs(committed, Pulse.__task_name__)) >= 2

            await until(ticked)
            scheduler.send_signal(signal.SIGINT)
            output, _ = await asyncio.wait_for(scheduler.communicate(), 120)
            assert b"Traceback" not in output, output.decode()


class TestWithoutRedis:
    @pytest.mark.parametrize("arguments", [WORKER, SCHEDULER])
    async def test_they_end_with_one_line_that_says_why(self, arguments: tuple[str, ...]) -> None:
        async with process(*arguments, REDIS_URL="", REDIS_HOST="") as started:
            output, _ = await asyncio.wait_for(started.communicate(), 120)
        assert output.count(b"REDIS_URL is not set: the app runs the jobs and the schedule itself") == 1
        assert b"Traceback" not in output
