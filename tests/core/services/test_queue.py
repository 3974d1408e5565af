"""Pushing tasks: what is stored when, and what is refused."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.exceptions import ConfigError, UniqueViolation
from app.core.runtime import Runtime
from app.core.services.log.context import correlation
from app.core.services.queue import BaseTask, TaskDataError
from app.core.services.queue.registry import TaskRegistry, tasks
from app.core.services.queue.store import new_job
from tests.core.services.conftest import rolled_back, until
from tests.core.services.stage import Hurry, Play, Say, Stage, Unqueued

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


class TestPush:
    async def test_runs_after_the_commit(self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage) -> None:
        async with kit.database.session_scope():
            number = await kit.queue.push(task=Play, data={"number": 7})
            assert isinstance(number, int)
            assert scene.entries == []
        assert await drain() == 1
        assert scene.values("play") == [7]
        assert not scene.entries[0].in_unit

    async def test_does_not_happen_when_the_unit_rolls_back(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs
    ) -> None:
        async with rolled_back(kit.database.session_scope()):
            await kit.queue.push(Play, {"number": 1})
        assert await jobs() == []
        assert await drain() == 0

    async def test_does_not_happen_when_its_savepoint_rolls_back(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        async with kit.database.session_scope() as session:
            await kit.queue.push(Play, {"number": 1})
            async with rolled_back(session.begin_nested()):
                await kit.queue.push(Play, {"number": 2})
        assert await drain() == 1
        assert scene.values("play") == [1]

    async def test_is_stored_at_once_outside_a_unit(self, kit: Runtime, db: AsyncSession, jobs: Jobs) -> None:
        number = await kit.queue.push(Play, {"number": 1})
        assert [(job.id, job.status) for job in await jobs()] == [(number, JobStatus.PENDING)]

    async def test_is_stored_at_the_end_of_a_read_only_unit(
        self, kit: Runtime, committed: Database, jobs: Jobs
    ) -> None:
        async with kit.database.session_scope(read_only=True):
            assert await kit.queue.push(Play, {"number": 1}) is None
            assert await jobs() == []
        assert [job.payload for job in await jobs()] == [{"number": 1}]

    async def test_says_what_the_database_refuses_of_the_unit(self, kit: Runtime, committed: Database) -> None:
        async with rolled_back(kit.database.session_scope()) as session:
            session.add_all([new_job(tasks.of(Hurry), {}, dedup_key="same") for _ in range(2)])
            with pytest.raises(UniqueViolation):
                await kit.queue.push(Play, {"number": 1})

    async def test_is_stored_by_a_task_that_outlives_the_unit_it_was_started_in(
        self, kit: Runtime, committed: Database, jobs: Jobs
    ) -> None:
        ended = asyncio.Event()

        async def later(number: int) -> None:
            await ended.wait()
            await kit.queue.push(Play, {"number": number})

        async with kit.database.session_scope():
            first = asyncio.create_task(later(1))
        async with kit.database.session_scope(read_only=True):
            second = asyncio.create_task(later(2))
        ended.set()
        await asyncio.gather(first, second)
        assert sorted(job.payload["number"] for job in await jobs()) == [1, 2]

    async def test_data_keeps_its_types(self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        await kit.queue.push(Play, {"number": 1, "at": moment})
        await drain()
        assert scene.values("play") == [(1, moment)]

    async def test_any_text_can_be_stored(self, kit: Runtime, db: AsyncSession, jobs: Jobs) -> None:
        await kit.queue.push(Say, {"text": "nul \x00, umlaut ü, quote '"})
        assert (await jobs())[0].payload == {"text": "nul \x00, umlaut ü, quote '"}

    @pytest.mark.parametrize("data", [{}, {"number": "top-secret"}, {"number": 1, "more": "top-secret"}])
    async def test_data_that_does_not_fit_is_refused_without_repeating_it(
        self, kit: Runtime, db: AsyncSession, jobs: Jobs, data: dict[str, Any]
    ) -> None:
        with pytest.raises(TaskDataError, match=r"test\.play") as refusal:
            await kit.queue.push(Play, data)
        assert "top-secret" not in str(refusal.value)
        assert await jobs() == []

    async def test_a_task_that_is_not_registered_is_refused(self, kit: Runtime, db: AsyncSession) -> None:
        with pytest.raises(TypeError, match="@queued"):
            await kit.queue.push(Unqueued, {"number": 1})

    async def test_a_job_carries_the_ids_of_its_request(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        with correlation("request-1", "conversation-1"):
            await kit.queue.push(Play, {"number": 1})
        await drain()
        assert scene.entries[0].ids == ("request-1", "conversation-1")


class TestPushNotDurable:
    async def test_runs_after_the_commit_and_leaves_no_row(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        async with kit.database.session_scope():
            with correlation("request-2", None):
                assert await kit.queue.push(Play, {"number": 3}, durable=False) is None
            assert scene.entries == []
        if kit.redis is None:  # else a worker would get it
            await until(lambda: scene.values("play") == [3])
            assert not scene.entries[0].in_unit
        assert await jobs() == []

    async def test_does_not_happen_when_the_unit_rolls_back(
        self, kit: Runtime, committed: Database, scene: Stage
    ) -> None:
        async with rolled_back(kit.database.session_scope()):
            await kit.queue.push(Play, {"number": 1}, durable=False)
        await kit.queue.push(Play, {"number": 2}, durable=False)
        if kit.redis is None:
            await until(lambda: scene.values("play") != [])
            assert scene.values("play") == [2]

    async def test_data_is_checked_too(self, kit: Runtime, db: AsyncSession) -> None:
        with pytest.raises(TaskDataError):
            await kit.queue.push(Play, {}, durable=False)


class TestRegistration:
    def test_a_name_belongs_to_one_task(self) -> None:
        registry = TaskRegistry()
        registry.add(Play)
        registry.add(Play)
        with pytest.raises(ConfigError, match=r"'test\.play' is used by .*Play and by .*Unqueued"):
            registry.add(Unqueued)

    def test_an_unfinished_task_is_refused(self) -> None:
        class Nameless(BaseTask):
            async def run(self) -> None: ...

        class Idle(BaseTask):
            __task_name__ = "test.idle"

        class Sync(BaseTask):
            __task_name__ = "test.sync"

            def run(self) -> None: ...  # type: ignore[override]  # the mistake

        class Open(BaseTask):
            __task_name__ = "test.open"

            async def run(self, **data: int) -> None: ...

        for task, reason in [
            (Nameless, "no __task_name__"),
            (Idle, "no `async def run"),
            (Sync, "no `async def run"),
            (Open, "'data', which cannot be pushed by name"),
            (dict, "subclass of BaseTask"),
        ]:
            with pytest.raises(ConfigError, match=reason):
                TaskRegistry().add(task)  # type: ignore[arg-type]  # one is no task

    @pytest.mark.parametrize("schedule", ["hourly", "* * * *", timedelta(0), timedelta(seconds=1.5)])
    def test_a_wrong_schedule_is_refused(self, schedule: str | timedelta) -> None:
        with pytest.raises(ConfigError, match="__schedule__"):
            TaskRegistry().add(type("Ticking", (Hurry,), {"__schedule__": schedule, "__task_name__": "test.tick"}))

    def test_a_scheduled_task_cannot_need_data(self) -> None:
        with pytest.raises(ConfigError, match="nobody gives its run number"):
            TaskRegistry().add(type("Ticking", (Play,), {"__schedule__": "* * * * *", "__task_name__": "test.tick"}))

    @pytest.mark.parametrize("secret", [SecretStr, SecretStr | None, list[SecretStr]])
    def test_a_row_never_holds_a_secret(self, secret: Any) -> None:
        class Whisper(BaseTask):
            __task_name__ = "test.whisper"

            async def run(self, password: secret) -> None: ...

        with pytest.raises(ConfigError, match=r"password.*secret"):
            TaskRegistry().add(Whisper)
