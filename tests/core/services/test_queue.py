"""Pushing tasks: what is stored when, and what is refused."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.exceptions import ConfigError, UniqueViolation
from app.core.runtime import Runtime
from app.core.services.background import Background
from app.core.services.log.context import correlation
from app.core.services.queue import BaseTask, JobWaker, PermanentFailure, QueueService, TaskDataError, queued
from app.core.services.queue.registry import TaskRegistry, tasks
from app.core.services.queue.store import new_job
from tests.core.services.conftest import make_runner, rolled_back, running, until
from tests.core.services.stage import Hurry, Play, Say, Stage, Unqueued
from tests.utils import freeze

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


HOUR = timedelta(hours=1)


class Parcel(BaseModel):
    gross_weight: float = Field(alias="grossWeight")


@queued
class Weigh(BaseTask):
    """Gives back a sum of floats."""

    __task_name__ = "test.weigh"

    async def run(self, amount: float, parcel: Parcel | None = None) -> float:
        return amount + (parcel.gross_weight if parcel else 0)


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

    async def test_what_could_not_be_read_back_is_refused(self, kit: Runtime, db: AsyncSession, jobs: Jobs) -> None:
        for amount in (float("nan"), float("inf")):
            with pytest.raises(TaskDataError, match=r"test\.weigh"):
                await kit.queue.push(Weigh, {"amount": amount})
        assert await jobs() == []

    async def test_a_model_with_other_names_in_json_keeps_its_values(
        self, kit: Runtime, db: AsyncSession, drain: Drain
    ) -> None:
        number = await kit.queue.push(Weigh, {"amount": 2, "parcel": {"grossWeight": 3}})
        assert number is not None
        await drain()
        assert await kit.queue.get_result(number) == 5


class TestWhen:
    @pytest.mark.parametrize(
        "when",
        [{"delay": 60}, {"delay": timedelta(minutes=1)}, {"eta": datetime(2026, 1, 2, 10, 1, tzinfo=timezone(HOUR))}],
    )
    async def test_it_waits(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage, when: dict[str, Any]
    ) -> None:
        with freeze("2026-01-02T09:00Z"):
            await kit.queue.push(Play, {"number": 1}, **when)
        with freeze("2026-01-02T09:00:59Z"):
            assert await drain() == 0
        with freeze("2026-01-02T09:01:00Z"):
            assert await drain() == 1

    @pytest.mark.parametrize("when", [{"delay": 0}, {"eta": datetime(2020, 1, 1, tzinfo=UTC)}])
    async def test_now_and_the_past_are_at_once(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage, when: dict[str, Any]
    ) -> None:
        await kit.queue.push(Play, {"number": 1}, **when)
        assert await drain() == 1

    @pytest.mark.parametrize(
        ("options", "error", "reason"),
        [
            ({"delay": -1}, ValueError, "delay is negative"),
            ({"delay": timedelta(seconds=-1)}, ValueError, "delay is negative"),
            ({"delay": float("inf")}, ValueError, "longer than the calendar"),
            ({"delay": timedelta.max}, ValueError, "longer than the calendar"),
            ({"eta": datetime(2026, 1, 2)}, ValueError, "eta is naive"),  # noqa: DTZ001  the mistake
            ({"delay": 1, "eta": datetime(2026, 1, 2, tzinfo=UTC)}, TypeError, "exclude each other"),
            ({"delay": 1, "durable": False}, TypeError, "need a durable push"),
            ({"eta": datetime(2026, 1, 2, tzinfo=UTC), "durable": False}, TypeError, "need a durable push"),
            ({"dedup_key": "a", "durable": False}, TypeError, "need a durable push"),
            ({"dedup_key": ""}, ValueError, "dedup_key must be 1 to 255 printable characters"),
            ({"dedup_key": "a" * 256}, ValueError, "dedup_key must be"),
            ({"dedup_key": "a\x00"}, ValueError, "dedup_key must be"),
            ({"dedup_key": "\ud800"}, ValueError, "dedup_key must be"),
        ],
    )
    async def test_what_makes_no_sense_is_refused(
        self, kit: Runtime, db: AsyncSession, jobs: Jobs, options: dict[str, Any], error: type[Exception], reason: str
    ) -> None:
        with pytest.raises(error, match=reason):
            await kit.queue.push(Play, {"number": 1}, **options)
        assert await jobs() == []


class TestDedupKey:
    async def test_one_unfinished_job_has_it(self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage) -> None:
        first = await kit.queue.push(Play, {"number": 1}, dedup_key="user 7")
        async with kit.database.session_scope():
            assert await kit.queue.push(Play, {"number": 2}, dedup_key="user 7") == first
            await kit.queue.push(Play, {"number": 3}, dedup_key="user 8")
            await kit.queue.push(Say, {"text": "of another task"}, dedup_key="user 7")
        assert await drain() == 3
        assert sorted(scene.values("play")) == [1, 3]

    @pytest.mark.parametrize("ending", ["completed", "dead", "cancelled"])
    async def test_it_is_free_again_when_that_has_ended(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage, ending: str
    ) -> None:
        first = await kit.queue.push(Play, {"number": 1}, dedup_key="a")
        assert first is not None
        if ending == "cancelled":
            await kit.queue.cancel(first)
        if ending == "dead":
            scene.fails("play", PermanentFailure())
        await drain()
        assert await kit.queue.push(Play, {"number": 2}, dedup_key="a") != first

    async def test_it_is_still_taken_between_two_attempts(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        first = await kit.queue.push(Play, {"number": 1}, dedup_key="a")
        scene.fails("play", LookupError())
        await drain()
        assert await kit.queue.push(Play, {"number": 2}, dedup_key="a") == first

    async def test_of_many_at_once_one_is_stored(self, kit: Runtime, committed: Database, jobs: Jobs) -> None:
        async def push(number: int) -> int | None:
            async with kit.database.session_scope():
                return await kit.queue.push(Play, {"number": number}, dedup_key="a")

        (number,) = set(await asyncio.gather(*(push(number) for number in range(8))))
        assert [job.id for job in await jobs()] == [number]

    async def test_a_rollback_frees_it(self, kit: Runtime, committed: Database, jobs: Jobs) -> None:
        async with rolled_back(kit.database.session_scope()):
            await kit.queue.push(Play, {"number": 1}, dedup_key="a")
        await kit.queue.push(Play, {"number": 2}, dedup_key="a")
        assert [job.payload for job in await jobs()] == [{"number": 2}]

    async def test_in_a_read_only_unit(self, kit: Runtime, committed: Database, jobs: Jobs) -> None:
        for number in (1, 2):
            async with kit.database.session_scope(read_only=True):
                assert await kit.queue.push(Play, {"number": number}, dedup_key="a") is None
                assert len(await jobs()) == number - 1
        assert [job.payload for job in await jobs()] == [{"number": 1}]

    async def test_a_runner_of_this_process_is_woken(self, kit: Runtime, committed: Database, scene: Stage) -> None:
        runner = make_runner(kit, poll=60)
        background = Background()
        queue = QueueService(lambda: kit.database, JobWaker(runner, None, background), kit.broker, background)
        async with running(runner):
            await queue.push(Play, {"number": 1}, dedup_key="a")
            await until(lambda: scene.values("play") == [1])


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
