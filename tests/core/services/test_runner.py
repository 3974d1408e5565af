"""The runner in the background: waking, looking, side by side, stopping."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.queue import JobRunner
from tests.core.services.conftest import change, make_runner, running, until
from tests.core.services.stage import Play, Stage

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


class Reachable:
    """The application's database, while it can be reached."""

    def __init__(self, kit: Runtime) -> None:
        self.kit = kit
        self.yes = True

    def __call__(self) -> Database:
        if not self.yes:
            raise OSError("no route to host")
        return self.kit.database


class TestBackground:
    async def test_runs_what_is_pushed_when_woken(self, kit: Runtime, committed: Database, scene: Stage) -> None:
        async with running(make_runner(kit, poll=60)) as runner:
            assert runner.running
            await kit.queue.push(Play, {"number": 1})
            runner.wake()
            await until(lambda: scene.values("play") == [1])
        assert not runner.running

    async def test_finds_by_looking_what_nobody_woke_it_for(
        self, kit: Runtime, committed: Database, scene: Stage
    ) -> None:
        async with running(make_runner(kit)):
            await kit.queue.push(Play, {"number": 1})
            await until(lambda: scene.values("play") == [1])

    async def test_runs_side_by_side_but_not_more_than_allowed(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        together, most = 0, 0

        async def count() -> None:
            nonlocal together, most
            together += 1
            most = max(most, together)
            await asyncio.sleep(0.03)
            together -= 1

        scene.scenes["play"] = count
        async with kit.database.session_scope():
            for number in range(9):
                await kit.queue.push(Play, {"number": number})
        # A long pause between looks: a free place must be filled without waiting for the next.
        async with running(make_runner(kit, concurrency=3, poll=60)):
            await until(lambda: len(scene.entries) == 9)
        assert most == 3
        assert {job.status for job in await jobs()} == {JobStatus.COMPLETED}

    async def test_the_heartbeat_keeps_the_lease(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        scene.scenes["play"] = lambda: asyncio.sleep(0.7)
        await kit.queue.push(Play, {"number": 1})
        async with running(make_runner(kit, lease=0.3)), running(make_runner(kit, lease=0.3)):
            await until(lambda: scene.values("play") != [])
        assert scene.values("play") == [1]
        assert (await jobs())[0].status == JobStatus.COMPLETED

    async def test_a_lost_lease_ends_the_run(self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage) -> None:
        ended = asyncio.Event()

        async def wait() -> None:
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

        scene.scenes["play"] = wait
        await kit.queue.push(Play, {"number": 1})
        async with running(make_runner(kit, lease=0.3)):
            await until(lambda: scene.values("play") == [1])
            await change(kit, attempts=2)  # what another runner's claim does
            await asyncio.wait_for(ended.wait(), 5)
        assert (await jobs())[0].attempts == 2

    async def test_stop_waits_for_running_jobs(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        scene.scenes["play"] = lambda: asyncio.sleep(0.2)
        await kit.queue.push(Play, {"number": 1})
        async with running(make_runner(kit)):
            await until(lambda: scene.values("play") == [1])
        assert (await jobs())[0].status == JobStatus.COMPLETED

    async def test_stop_hands_back_what_outlasts_the_grace_time(
        self, kit: Runtime, committed: Database, jobs: Jobs, drain: Drain, scene: Stage
    ) -> None:
        scene.scenes["play"] = lambda: asyncio.sleep(30)
        await kit.queue.push(Play, {"number": 1})
        async with running(make_runner(kit), grace=0.05):
            await until(lambda: scene.values("play") == [1])
        job = (await jobs())[0]
        assert (job.status, job.attempts) == (JobStatus.PENDING, 0)
        scene.scenes.clear()
        assert await drain() == 1

    async def test_a_database_that_is_away_is_waited_out(self, kit: Runtime, committed: Database, scene: Stage) -> None:
        looks = 0

        def database() -> Database:
            nonlocal looks
            looks += 1
            if looks < 3:
                raise OSError("no route to host")
            return kit.database

        await kit.queue.push(Play, {"number": 1})
        async with running(JobRunner(database, concurrency=1, poll=0.01, lease=60)):
            await until(lambda: scene.values("play") == [1])
        assert looks >= 3

    async def test_stopping_what_never_started_is_nothing(self, kit: Runtime) -> None:
        await make_runner(kit).stop(1)

    async def test_a_heartbeat_that_fails_is_tried_again(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage, capfd: pytest.CaptureFixture[str]
    ) -> None:
        reachable = Reachable(kit)

        async def cut_off() -> None:
            reachable.yes = False
            await asyncio.sleep(0.15)
            reachable.yes = True
            await asyncio.sleep(0.15)

        scene.scenes["play"] = cut_off
        await kit.queue.push(Play, {"number": 1})
        async with running(JobRunner(reachable, concurrency=1, poll=60, lease=0.3)):
            await until(lambda: scene.values("play") == [1])
        assert "the lease of a job could not be extended" in capfd.readouterr().out
        assert (await jobs())[0].status == JobStatus.COMPLETED

    async def test_an_outcome_that_cannot_be_stored_is_logged_and_the_job_runs_again(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage, capfd: pytest.CaptureFixture[str]
    ) -> None:
        reachable = Reachable(kit)

        async def cut_off() -> None:
            reachable.yes = len(scene.entries) > 1

        scene.scenes["play"] = cut_off
        await kit.queue.push(Play, {"number": 1})
        runner = JobRunner(reachable, concurrency=1, poll=0.02, lease=0.1)
        async with running(runner):
            await until(lambda: scene.values("play") == [1])
            await until(lambda: "the outcome of a job could not be stored" in capfd.readouterr().out)
            reachable.yes = True
            await until(lambda: scene.values("play") == [1, 1])
        job = (await jobs())[0]
        assert (job.status, job.attempts) == (JobStatus.COMPLETED, 2)
