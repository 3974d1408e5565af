"""The runner: outcomes, retries, leases, stopping."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.queue import BaseTask, JobRunner, PermanentFailure
from app.core.services.queue.execution import MAX_BACKOFF_SECONDS, backoff
from app.core.services.queue.store import JobStore
from tests.core.services.conftest import running, until
from tests.core.services.stage import Hurry, Play, Say, Stage
from tests.utils import freeze

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


def make_runner(kit: Runtime, *, concurrency: int = 10, poll: float = 0.02, lease: float = 60) -> JobRunner:
    return JobRunner(lambda: kit.database, concurrency=concurrency, poll=poll, lease=lease)


async def change(kit: Runtime, **values: object) -> None:
    async with kit.database.session_scope() as session:
        await session.execute(update(Job).values(**values))


class TestOutcome:
    async def test_completed(self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage) -> None:
        await kit.queue.push(Play, {"number": 1})
        assert await drain() == 1
        assert await drain() == 0
        job = (await jobs())[0]
        assert (job.status, job.attempts, job.last_error) == (JobStatus.COMPLETED, 1, None)
        assert job.started_at is not None
        assert job.finished_at is not None
        assert scene.values("play") == [1]

    async def test_failed_then_completed(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        scene.fails("play", RuntimeError("the curtain is stuck"))
        assert await drain() == 1
        job = (await jobs())[0]
        assert (job.status, job.attempts) == (JobStatus.FAILED, 1)
        assert job.last_error == "RuntimeError: the curtain is stuck"
        assert job.finished_at is None
        assert await drain() == 0  # not before its time
        scene.scenes.clear()
        with freeze(timedelta(seconds=2)):
            assert await drain() == 1
        job = (await jobs())[0]
        assert (job.status, job.attempts, job.last_error) == (JobStatus.COMPLETED, 2, None)
        assert [entry.attempt for entry in scene.entries] == [1, 2]

    async def test_dead_after_the_last_attempt(
        self, kit: Runtime, db: AsyncSession, drain: Drain, due: Due, jobs: Jobs, scene: Stage
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        scene.fails("play", ValueError("never"))
        for _ in range(Play.max_attempts):
            assert await drain() == 1
            await due()
        assert await drain() == 0
        job = (await jobs())[0]
        assert (job.status, job.attempts, job.last_error) == (JobStatus.DEAD, 3, "ValueError: never")
        assert job.finished_at is not None

    async def test_dead_at_once_when_trying_again_cannot_help(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        scene.fails("play", PermanentFailure("no such address"))
        await drain()
        job = (await jobs())[0]
        assert (job.status, job.attempts) == (JobStatus.DEAD, 1)
        assert job.last_error == "PermanentFailure: no such address"

    async def test_a_failure_leaves_other_jobs_alone(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        scene.fails("play", RuntimeError("stuck"))
        await kit.queue.push(Play, {"number": 1})
        await kit.queue.push(Say, {"text": "on"})
        assert await drain() == 2
        assert [job.status for job in await jobs()] == [JobStatus.FAILED, JobStatus.COMPLETED]

    async def test_too_slow(self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage) -> None:
        scene.scenes["hurry"] = lambda: asyncio.sleep(30)
        await kit.queue.push(Hurry)
        await drain()
        assert (await jobs())[0].last_error == "TimeoutError: test.hurry did not end within 0.05 s"

    async def test_a_timeout_inside_the_task_keeps_its_own_text(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        scene.fails("hurry", TimeoutError("the neighbour did not answer"))
        await kit.queue.push(Hurry)
        await drain()
        assert (await jobs())[0].last_error == "TimeoutError: the neighbour did not answer"

    async def test_a_task_that_cancels_itself_has_failed(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        scene.fails("play", asyncio.CancelledError())
        await kit.queue.push(Play, {"number": 1})
        await drain()
        job = (await jobs())[0]
        assert (job.status, job.last_error) == (JobStatus.FAILED, "CancelledError")

    async def test_an_unknown_task_is_tried_again_then_dead(
        self, kit: Runtime, db: AsyncSession, drain: Drain, due: Due, jobs: Jobs
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        await change(kit, task="test.removed")
        await drain()
        job = (await jobs())[0]
        assert job.status == JobStatus.FAILED
        assert job.last_error == "UnknownTask: no task is registered as 'test.removed': is its module installed here?"
        for _ in range(2):
            await due()
            await drain()
        assert (await jobs())[0].status == JobStatus.DEAD

    async def test_data_that_no_longer_fits_is_not_quoted(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        await change(kit, payload={"number": "private"})
        await drain()
        error = (await jobs())[0].last_error
        assert error is not None
        assert error.startswith("ValidationError: number: Input should be a valid integer")
        assert "private" not in error
        assert scene.entries == []

    async def test_the_error_is_trimmed_and_hides_secrets(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        scene.fails("play", RuntimeError("postgresql://app:hunter2@db \x00 token=abcdef " + "x" * 5000))
        await kit.queue.push(Play, {"number": 1})
        await drain()
        error = (await jobs())[0].last_error
        assert error is not None
        assert len(error) == 1000
        assert "hunter2" not in error
        assert "abcdef" not in error
        assert "\x00" not in error

    async def test_a_database_error_is_stored_without_its_statement(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        scene.fails("play", OperationalError("SELECT secret_column", {}, Exception("disk full\nDETAIL: private")))
        await kit.queue.push(Play, {"number": 1})
        await drain()
        assert (await jobs())[0].last_error == "OperationalError: disk full"


class TestBackoff:
    def test_doubles_with_jitter_up_to_an_hour(self) -> None:
        class Slow(BaseTask):
            backoff = 10.0

        for attempts, expected in [(1, 10.0), (2, 20.0), (4, 80.0), (40, MAX_BACKOFF_SECONDS)]:
            delays = {backoff(Slow, attempts).total_seconds() for _ in range(50)}
            assert len(delays) > 1
            assert expected * 0.75 <= min(delays)
            assert max(delays) <= expected * 1.25


class TestLease:
    @pytest.fixture
    def store(self, kit: Runtime) -> JobStore:
        return JobStore(lambda: kit.database, timedelta(seconds=60))

    async def test_a_claimed_job_is_not_claimed_twice(self, kit: Runtime, db: AsyncSession, store: JobStore) -> None:
        await kit.queue.push(Play, {"number": 1})
        assert len(await store.claim(10)) == 1
        assert await store.claim(10) == []

    async def test_a_lease_that_ended_is_taken_over_and_the_first_run_writes_nothing(
        self, kit: Runtime, db: AsyncSession, store: JobStore, jobs: Jobs
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        lost = (await store.claim(1))[0]
        with freeze(timedelta(seconds=61)):
            taken = (await store.claim(1))[0]
        assert (lost.id, lost.attempts, taken.attempts) == (taken.id, 1, 2)
        assert not await store.extend(lost)
        assert not await store.complete(lost)
        assert not await store.retry(lost, "late", timedelta())
        assert not await store.bury(lost, "late")
        assert not await store.release(lost)
        assert (await jobs())[0].status == JobStatus.PROCESSING
        assert await store.complete(taken)
        assert not await store.complete(taken)

    async def test_an_extended_lease_holds(self, kit: Runtime, db: AsyncSession, store: JobStore) -> None:
        await kit.queue.push(Play, {"number": 1})
        job = (await store.claim(1))[0]
        with freeze(timedelta(seconds=50)):
            assert await store.extend(job)
        with freeze(timedelta(seconds=100)):
            assert await store.claim(1) == []

    async def test_a_job_that_loses_its_process_every_time_is_dead(
        self, kit: Runtime, db: AsyncSession, store: JobStore, due: Due, jobs: Jobs
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        for _ in range(Play.max_attempts):
            assert len(await store.claim(1)) == 1
            await due()
        assert await store.claim(1) == []
        job = (await jobs())[0]
        assert job.status == JobStatus.DEAD
        assert job.last_error == "LeaseExpired: the process running it was lost in attempt 3"

    async def test_what_is_handed_back_can_be_claimed_at_once(
        self, kit: Runtime, db: AsyncSession, store: JobStore
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        job = (await store.claim(1))[0]
        assert await store.release(job)
        again = await store.claim(1)
        assert [(found.id, found.attempts) for found in again] == [(job.id, 1)]

    async def test_claims_side_by_side_share_no_job(self, kit: Runtime, committed: Database, store: JobStore) -> None:
        async with kit.database.session_scope():
            for number in range(30):
                await kit.queue.push(Play, {"number": number})
        batches = await asyncio.gather(*(store.claim(7) for _ in range(8)))
        ids = [job.id for batch in batches for job in batch]
        assert len(ids) == len(set(ids)) == 30

    async def test_purge_removes_old_completed_jobs_only(
        self, kit: Runtime, db: AsyncSession, store: JobStore, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        scene.fails("play", PermanentFailure("kept for whoever looks"))
        await kit.queue.push(Play, {"number": 1})
        await kit.queue.push(Say, {"text": "old"})
        await drain()
        await kit.queue.push(Say, {"text": "waiting"})
        assert await store.purge(utcnow() - timedelta(days=1)) == 0
        assert await store.purge(utcnow()) == 1
        assert [job.status for job in await jobs()] == [JobStatus.DEAD, JobStatus.PENDING]


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
