"""What becomes of a job, as whoever pushed it sees it: results, waiting, cancelling."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.deps import DBSession, QueueService, queued
from app.core.exceptions import ConfigError
from app.core.runtime import Runtime
from app.core.services.queue import BaseTask, JobCancelled, JobFailed, JobNotFound, JobNotReady
from app.core.services.queue.registry import TaskRegistry
from tests.core.services.conftest import change, make_runner, rolled_back, running
from tests.core.services.stage import Play, Stage
from tests.utils import freeze

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

returned: dict[str, Any] = {}


class Sum(BaseModel):
    total: int
    at: datetime | None = None


@queued
class Add(BaseTask):
    """Says what it returns."""

    __task_name__ = "test.add"

    async def run(self, first: int, second: int) -> Sum:
        wrong: Sum | None = returned.get("sum")
        return wrong or Sum(total=first + second)


@queued
class Tell(BaseTask):
    """Does not say what it returns."""

    __task_name__ = "test.tell"

    async def run(self, queue: QueueService, db: DBSession):  # type: ignore[no-untyped-def]  # noqa: ANN201  on purpose
        await queue.push(Play, {"number": 1})
        return returned["told"]


@pytest.fixture(autouse=True)
def nothing_returned() -> None:
    returned.clear()


async def push_add(kit: Runtime) -> int:
    number = await kit.queue.push(Add, {"first": 1, "second": 2})
    assert number is not None
    return number


class TestResult:
    async def test_is_what_run_returned_as_json(self, kit: Runtime, db: AsyncSession, drain: Drain) -> None:
        number = await push_add(kit)
        assert not await kit.queue.is_ready(number)
        with pytest.raises(JobNotReady):
            await kit.queue.get_result(number)
        await drain()
        assert await kit.queue.is_ready(number)
        assert await kit.queue.get_result(number) == {"total": 3, "at": None}

    @pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1.5, None]}, "nul \x00"])
    async def test_may_be_any_json(self, kit: Runtime, db: AsyncSession, drain: Drain, value: Any) -> None:
        returned["told"] = value
        number = await kit.queue.push(Tell)
        assert number is not None
        await drain()
        assert await kit.queue.get_result(number) == value

    @pytest.mark.parametrize("value", [object(), {"a": [object()]}, datetime.now])
    async def test_that_is_no_json_makes_the_job_dead_and_undoes_its_work(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, value: Any
    ) -> None:
        returned["told"] = value
        number = await kit.queue.push(Tell)
        assert number is not None
        assert await drain() == 1
        with pytest.raises(JobFailed) as failure:
            await kit.queue.get_result(number)
        assert failure.value.reason == "TaskResultError: test.tell returned what is no JSON"
        assert [(job.task, job.status) for job in await jobs()] == [("test.tell", JobStatus.DEAD)]

    async def test_that_is_not_what_run_declares_makes_the_job_dead(
        self, kit: Runtime, db: AsyncSession, drain: Drain
    ) -> None:
        returned["sum"] = {"total": "top-secret"}
        number = await push_add(kit)
        await drain()
        with pytest.raises(JobFailed) as failure:
            await kit.queue.get_result(number)
        assert "total: Input should be a valid integer" in failure.value.reason
        assert "top-secret" not in failure.value.reason

    async def test_of_a_dead_job_is_its_reason_for_developers_only(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        number = await kit.queue.push(Play, {"number": 1})
        assert number is not None
        await change(kit, max_attempts=1)
        scene.fails("play", LookupError("shelf 7"))
        await drain()
        with pytest.raises(JobFailed) as failure:
            await kit.queue.get_result(number)
        assert failure.value.reason == "LookupError: shelf 7"
        assert "shelf 7" not in failure.value.detail

    @pytest.mark.parametrize("number", [0, -1, 999_999, 2**63, 10**30])
    async def test_of_an_unknown_job(self, kit: Runtime, db: AsyncSession, number: int) -> None:
        for ask in (kit.queue.is_ready, kit.queue.get_result, kit.queue.wait_result):
            with pytest.raises(JobNotFound):
                await ask(number)
        assert not await kit.queue.cancel(number)

    def test_never_holds_a_secret(self) -> None:
        class Whisper(BaseTask):
            __task_name__ = "test.whisper"

            async def run(self) -> dict[str, SecretStr]:
                return {}

        with pytest.raises(ConfigError, match="returns a secret"):
            TaskRegistry().add(Whisper)

    def test_that_can_be_no_json_is_refused(self) -> None:
        class Shelf:
            pass

        class Fetch(BaseTask):
            __task_name__ = "test.fetch"

            async def run(self) -> Shelf:
                return Shelf()

        with pytest.raises(ConfigError, match=r"Fetch\.run takes or returns what cannot be stored as JSON"):
            TaskRegistry().add(Fetch)


class TestWait:
    async def test_for_a_job_that_runs_meanwhile(self, kit: Runtime, committed: Database) -> None:
        async with running(make_runner(kit)):
            assert (await kit.queue.wait_result(await push_add(kit), timeout=60))["total"] == 3

    async def test_no_longer_than_asked(self, kit: Runtime, db: AsyncSession) -> None:
        number = await push_add(kit)
        for timeout in (0, -1, 0.05):
            async with asyncio.timeout(60):
                with pytest.raises(JobNotReady):
                    await kit.queue.wait_result(number, timeout=timeout)

    async def test_in_the_unit_that_pushed_is_refused_until_it_has_committed(
        self, kit: Runtime, committed: Database
    ) -> None:
        async with running(make_runner(kit)), kit.database.session_scope() as session:
            number = await push_add(kit)
            assert not await kit.queue.is_ready(number)
            with pytest.raises(RuntimeError, match="commit first"):
                await kit.queue.wait_result(number, timeout=60)
            await session.commit()
            assert (await kit.queue.wait_result(number, timeout=60))["total"] == 3

    async def test_in_a_read_only_unit_sees_what_happens_meanwhile(self, kit: Runtime, committed: Database) -> None:
        number = await push_add(kit)
        async with kit.database.session_scope(read_only=True) as session:
            assert await session.get(Job, number)
            async with running(make_runner(kit)):
                assert (await kit.queue.wait_result(number, timeout=60))["total"] == 3


class TestCancel:
    async def test_what_waits_never_runs(self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs) -> None:
        number = await push_add(kit)
        assert await kit.queue.cancel(number)
        assert await drain() == 0
        (job,) = await jobs()
        assert job.status == JobStatus.CANCELLED
        assert job.finished_at is not None
        assert await kit.queue.is_ready(number)
        with pytest.raises(JobCancelled):
            await kit.queue.get_result(number)
        assert not await kit.queue.cancel(number)

    async def test_what_waits_for_another_attempt(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        number = await kit.queue.push(Play, {"number": 1})
        assert number is not None
        scene.fails("play", LookupError())
        await drain()
        assert await kit.queue.cancel(number)
        with freeze(timedelta(hours=1)):
            assert await drain() == 0

    async def test_not_what_has_ended(self, kit: Runtime, db: AsyncSession, drain: Drain) -> None:
        number = await push_add(kit)
        await drain()
        assert not await kit.queue.cancel(number)
        assert (await kit.queue.get_result(number))["total"] == 3

    async def test_not_what_runs(self, kit: Runtime, committed: Database, scene: Stage) -> None:
        began, ends = asyncio.Event(), asyncio.Event()

        async def play() -> None:
            began.set()
            await ends.wait()

        scene.scenes["play"] = play
        number = await kit.queue.push(Play, {"number": 1})
        assert number is not None
        async with running(make_runner(kit)), asyncio.timeout(60):
            await began.wait()
            assert not await kit.queue.cancel(number)
            ends.set()
            assert await kit.queue.wait_result(number, timeout=60) is None

    async def test_belongs_to_its_unit(self, kit: Runtime, committed: Database, drain: Drain) -> None:
        number = await push_add(kit)
        async with rolled_back(kit.database.session_scope()):
            assert await kit.queue.cancel(number)
        async with kit.database.session_scope(read_only=True):
            assert not await kit.queue.is_ready(number)
        assert await drain() == 1
