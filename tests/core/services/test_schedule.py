"""Scheduled tasks: each tick is one job."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job, JobStatus
from app.core.db.jobs import Schedule as Progress
from app.core.db.session import Database
from app.core.exceptions import ConfigError
from app.core.runtime import Runtime
from app.core.services.queue import BaseTask, Clock, Cron, Every, PurgeJobs
from app.core.services.queue.interface import Schedule
from app.core.services.queue.registry import RegisteredTask, TaskRegistry, tasks
from tests.core.services.conftest import until
from tests.core.services.stage import Hurry, Say, Stage, Tick
from tests.utils import freeze

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

NINE = datetime(2026, 1, 2, 9, tzinfo=UTC)
DAILY = Cron("0 9 * * *")


def scheduled(schedule: Schedule | str | timedelta) -> RegisteredTask:
    cls: type[BaseTask] = type("Daily", (Hurry,), {"__schedule__": schedule, "__task_name__": "test.daily"})
    return RegisteredTask(cls)


async def look_at(moment: datetime, task: RegisteredTask, schedulers: int = 1) -> set[datetime]:
    """Have that many schedulers look at once; when they want to look again."""
    with freeze(moment):
        return {moment + left for left in await asyncio.gather(*(Clock().check(task) for _ in range(schedulers)))}


class TestTick:
    async def test_a_schedule_begins_when_it_is_first_seen(self, kit: Runtime, committed: Database, jobs: Jobs) -> None:
        task = scheduled(Cron("0 9 * * *", catch_up=True))
        assert await look_at(NINE, task, schedulers=3) == {NINE + timedelta(days=1)}
        assert await jobs() == []

    async def test_of_several_schedulers_one_stores_it(self, kit: Runtime, committed: Database, jobs: Jobs) -> None:
        task = scheduled(DAILY)
        await look_at(NINE - timedelta(hours=1), task)
        for day in (1, 2):
            assert await look_at(NINE + timedelta(days=day - 1), task, schedulers=4) == {NINE + timedelta(days=day)}
            assert [job.dedup_key for job in await jobs()] == [f"tick 2026-01-{2 + i:02}T09:00:00Z" for i in range(day)]

    async def test_it_runs(self, kit: Runtime, committed: Database, drain: Drain, scene: Stage) -> None:
        task = tasks.of(Tick)
        await look_at(NINE, task)
        await look_at(NINE + timedelta(seconds=1), task)
        await drain()
        assert scene.values("tick") == [None]

    async def test_its_job_and_its_progress_are_stored_together(
        self, kit: Runtime, committed: Database, jobs: Jobs
    ) -> None:
        class Refusing(RegisteredTask):
            def dump(self, data: object) -> dict[str, object]:
                raise LookupError

        await look_at(NINE - timedelta(hours=1), scheduled(DAILY))
        with pytest.raises(LookupError):
            await look_at(NINE, Refusing(scheduled(DAILY).cls))
        await look_at(NINE + timedelta(seconds=10), scheduled(DAILY))
        assert len(await jobs()) == 1

    async def test_a_clock_that_was_far_ahead_does_not_stop_it(
        self, kit: Runtime, committed: Database, jobs: Jobs
    ) -> None:
        await look_at(NINE + timedelta(days=400), scheduled(DAILY))
        assert await look_at(NINE - timedelta(hours=1), scheduled(DAILY), schedulers=3) == {NINE}
        await look_at(NINE, scheduled(DAILY), schedulers=3)
        assert len(await jobs()) == 1

    @pytest.mark.parametrize(("ahead", "left"), [(30, 31), (90, 1)])
    async def test_it_waits_for_a_clock_that_was_set_back_a_little_and_follows_one_that_was_set_back_far(
        self,
        kit: Runtime,
        committed: Database,
        jobs: Jobs,
        capfd: pytest.CaptureFixture[str],
        ahead: int,
        left: int,
    ) -> None:
        task = scheduled(Every(timedelta(seconds=1)))
        await look_at(NINE + timedelta(seconds=ahead), task)
        assert await look_at(NINE, task, schedulers=3) == {NINE + timedelta(seconds=left)}
        assert await jobs() == []  # no tick twice
        said = "a schedule was ahead of the clock: it goes on from now" in capfd.readouterr().out
        assert said is (ahead == 90)

    async def test_clocks_that_differ_a_little_store_it_once(
        self, kit: Runtime, committed: Database, jobs: Jobs
    ) -> None:
        task = scheduled(DAILY)
        await look_at(NINE - timedelta(hours=1), task)
        await look_at(NINE + timedelta(seconds=40), task)
        await look_at(NINE - timedelta(seconds=5), task)
        await look_at(NINE + timedelta(seconds=1), task)
        assert len(await jobs()) == 1


class TestMissed:
    @pytest.mark.parametrize("schedule", ["0 9 * * *", DAILY, timedelta(days=1), Every(timedelta(days=1))])
    async def test_is_skipped(
        self,
        kit: Runtime,
        committed: Database,
        jobs: Jobs,
        capfd: pytest.CaptureFixture[str],
        schedule: Schedule | str | timedelta,
    ) -> None:
        task = scheduled(schedule)
        await look_at(NINE - timedelta(days=7), task)
        await look_at(NINE + timedelta(hours=1), task, schedulers=3)
        assert await jobs() == []
        assert "a scheduled run was missed and is skipped" in capfd.readouterr().out

    async def test_but_not_when_it_is_found_within_a_minute(
        self, kit: Runtime, committed: Database, jobs: Jobs
    ) -> None:
        await look_at(NINE - timedelta(days=7), scheduled(DAILY))
        await look_at(NINE + timedelta(seconds=50), scheduled(DAILY))
        assert len(await jobs()) == 1

    @pytest.mark.parametrize("schedule", [Cron("0 9 * * *", catch_up=True), Every(timedelta(minutes=1), catch_up=True)])
    async def test_is_caught_up_once(self, kit: Runtime, committed: Database, jobs: Jobs, schedule: Schedule) -> None:
        task = scheduled(schedule)
        await look_at(NINE - timedelta(days=7), task)
        await look_at(NINE + timedelta(hours=1, seconds=1), task, schedulers=3)
        assert len(await jobs()) == 1


@asynccontextmanager
async def ticking() -> AsyncIterator[None]:
    """A clock in the background of the block."""
    clock = asyncio.create_task(Clock().run())
    try:
        yield
    finally:
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)


async def ticked(jobs: Jobs) -> None:
    async with asyncio.timeout(60):
        while not [job for job in await jobs() if job.task == Tick.__task_name__]:  # noqa: ASYNC110  as `until`
            await asyncio.sleep(0.05)


async def _progress(database: Database) -> bool:
    """Whether every schedule has been looked at."""
    async with database.session_scope(read_only=True) as session:
        return len((await session.scalars(select(Progress.id))).all()) == len([task for task in tasks if task.schedule])


class TestClock:
    async def test_goes_on_after_the_database_was_away(
        self, kit: Runtime, committed: Database, jobs: Jobs, capfd: pytest.CaptureFixture[str]
    ) -> None:
        away = kit.database = Database.connect(kit.settings.database_url.set(database="absent/database"))
        try:
            async with ticking():
                await until(lambda: "a schedule cannot be kept: trying again" in capfd.readouterr().out)
                kit.database = committed
                await ticked(jobs)
        finally:
            kit.database = committed
            await away.close()

    async def test_goes_on_after_the_clock_was_put_back(self, kit: Runtime, committed: Database, jobs: Jobs) -> None:
        with freeze(timedelta(days=400)):
            clock = asyncio.create_task(Clock().run())
            async with asyncio.timeout(60):
                while not await _progress(committed):  # noqa: ASYNC110  as `until`
                    await asyncio.sleep(0.02)
        try:
            await ticked(jobs)
        finally:
            clock.cancel()
            await asyncio.gather(clock, return_exceptions=True)

    async def test_a_slow_one_delays_no_other(self, kit: Runtime, committed: Database, jobs: Jobs) -> None:
        if committed.engine.dialect.name == "sqlite":
            pytest.skip("SQLite has one lock for all rows")
        for task in (PurgeJobs, Tick):
            await look_at(NINE, tasks.of(task))  # long past: both are due
        async with committed.session_scope() as other:
            held = select(Progress).where(Progress.task == PurgeJobs.__task_name__).with_for_update()
            assert (await other.scalars(held)).all()
            async with ticking():
                await ticked(jobs)


class TestRegistration:
    @pytest.mark.parametrize(
        ("schedule", "reason"),
        [
            ("61 * * * *", r"Daily\.__schedule__ = '61 \* \* \* \*': Bad minute"),
            (Cron("0 9 * * *", tz="Mars/Base"), r"Daily\.__schedule__ = .*no time zone 'Mars/Base'"),
            (Every(timedelta(0)), r"Daily\.__schedule__ = .*at least one"),
            (5, r"Daily\.__schedule__ = 5"),
        ],
    )
    def test_a_wrong_schedule_names_its_task_and_value(self, schedule: Schedule, reason: str) -> None:
        with pytest.raises(ConfigError, match=reason):
            TaskRegistry().add(scheduled(schedule).cls)


async def test_the_purge_keeps_what_is_young(
    kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
) -> None:
    await kit.queue.push(Say, {"text": "old"})
    cancelled = await kit.queue.push(Say, {"text": "cancelled"})
    assert cancelled is not None
    assert await kit.queue.cancel(cancelled)
    await kit.queue.push(PurgeJobs)
    await drain()
    assert [job.task for job in await jobs()] == ["test.say", "test.say", "jobs.purge"]
    with freeze(timedelta(days=kit.settings.JOBS_KEEP_DAYS, hours=1)):
        await kit.queue.push(PurgeJobs)
        assert await drain() == 1
    assert [(job.task, job.status) for job in await jobs()] == [("jobs.purge", JobStatus.COMPLETED)]
