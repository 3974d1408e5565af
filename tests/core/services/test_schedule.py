"""Scheduled tasks: each tick is one job."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from taskiq import ScheduledTask

from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.queue import JobScheduler
from app.core.services.queue.schedule import RegistrySource, tick_of
from tests.core.services.stage import Say, Stage
from tests.utils import freeze

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


def scheduled(**when: object) -> ScheduledTask:
    return ScheduledTask.model_validate({"task_name": "x", "labels": {}, "args": [], "kwargs": {}, **when})


@pytest.fixture
async def purge() -> ScheduledTask:
    """The schedule of the queue's own task."""
    schedules = await RegistrySource().get_schedules()
    return next(entry for entry in schedules if entry.task_name == "jobs.purge")


class TestSource:
    async def test_lists_scheduled_tasks_only(self, purge: ScheduledTask) -> None:
        schedules = await RegistrySource().get_schedules()
        assert (purge.schedule_id, purge.cron, purge.interval) == ("jobs.purge", "17 * * * *", None)
        assert Say.__task_name__ not in {entry.task_name for entry in schedules}


class TestTick:
    NOW = datetime(2026, 1, 2, 3, 17, 42, 5, tzinfo=UTC)

    def test_of_a_cron_line_is_the_minute(self) -> None:
        assert tick_of(scheduled(cron="17 * * * *"), self.NOW) == datetime(2026, 1, 2, 3, 17, tzinfo=UTC)

    @pytest.mark.parametrize("interval", [30, timedelta(seconds=30)])
    def test_of_an_interval_is_its_last_multiple(self, interval: int | timedelta) -> None:
        assert tick_of(scheduled(interval=interval), self.NOW) == datetime(2026, 1, 2, 3, 17, 30, tzinfo=UTC)


class TestScheduler:
    async def test_of_several_one_stores_the_tick(
        self, kit: Runtime, committed: Database, jobs: Jobs, purge: ScheduledTask
    ) -> None:
        schedulers = [JobScheduler(kit.broker) for _ in range(4)]
        with freeze(datetime(2026, 1, 2, 3, 17, 1, tzinfo=UTC)):
            await asyncio.gather(*(each.on_ready(each.sources[0], purge) for each in schedulers))
        assert [job.dedup_key for job in await jobs()] == ["jobs.purge@2026-01-02T03:17:00Z"]
        with freeze(datetime(2026, 1, 2, 4, 17, 1, tzinfo=UTC)):
            await schedulers[0].on_ready(schedulers[0].sources[0], purge)
        assert len(await jobs()) == 2

    async def test_the_purge_keeps_what_is_young(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, purge: ScheduledTask, scene: Stage
    ) -> None:
        await kit.queue.push(Say, {"text": "old"})
        await drain()
        scheduler = JobScheduler(kit.broker)
        await scheduler.on_ready(scheduler.sources[0], purge)
        assert await drain() == 1
        assert [job.task for job in await jobs()] == ["test.say", "jobs.purge"]
        with freeze(timedelta(days=kit.settings.JOBS_KEEP_DAYS, hours=1)):
            await scheduler.on_ready(scheduler.sources[0], purge)
            assert await drain() == 1
        assert [(job.task, job.status) for job in await jobs()] == [("jobs.purge", JobStatus.COMPLETED)]

    async def test_a_database_that_is_away_is_logged_and_the_scheduler_goes_on(
        self, kit: Runtime, app: object, purge: ScheduledTask, capfd: pytest.CaptureFixture[str]
    ) -> None:
        original, kit.database = (
            kit.database,
            Database.connect(kit.settings.database_url.set(database="absent/database")),
        )
        try:
            scheduler = JobScheduler(kit.broker)
            await scheduler.on_ready(scheduler.sources[0], purge)
        finally:
            await kit.database.close()
            kit.database = original
        assert "a scheduled task could not be stored" in capfd.readouterr().out
