"""What becomes of a job that was run."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.queue import BaseTask, PermanentFailure
from app.core.services.queue.execution import MAX_BACKOFF_SECONDS, MAX_POSTPONED, backoff
from tests.core.services.conftest import change
from tests.core.services.stage import Hurry, Play, Say, Stage
from tests.utils import freeze

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


class Unspeakable(Exception):
    """An error without a text, not even an empty one."""

    def __str__(self) -> str:
        raise AttributeError("no text")


class Ending(BaseException):
    """What some libraries leave by."""


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

    @pytest.mark.parametrize(
        ("written", "reason"),
        [
            (
                {"task": "test.removed"},
                "UnknownTask: no task is registered as 'test.removed': is its module installed here?",
            ),
            ({"payload": {"number": "private"}}, "ValidationError: number: Input should be a valid integer"),
            ({"payload": {"number": 1, "seat": 2}}, "ValidationError: seat: Extra inputs are not permitted"),
        ],
    )
    async def test_what_only_another_version_understands_waits_for_it(
        self,
        kit: Runtime,
        db: AsyncSession,
        drain: Drain,
        due: Due,
        jobs: Jobs,
        scene: Stage,
        written: dict[str, Any],
        reason: str,
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        await change(kit, **written)
        for _ in range(Play.max_attempts + 2):
            assert await drain() == 1
            await due()
        job = (await jobs())[0]
        assert job.status == JobStatus.FAILED
        assert (job.last_error or "").startswith(reason)
        assert "private" not in (job.last_error or "")
        await change(kit, task="test.play", payload={"number": 1})  # the worker that understands it is there
        scene.fails("play", RuntimeError("stuck"))
        for _ in range(Play.max_attempts):
            assert (await jobs())[0].status == JobStatus.FAILED
            await drain()
            await due()
        assert (await jobs())[0].last_error == "RuntimeError: stuck"
        assert (await jobs())[0].status == JobStatus.DEAD

    async def test_what_nobody_understands_for_half_a_day_is_dead(
        self, kit: Runtime, db: AsyncSession, drain: Drain, due: Due, jobs: Jobs
    ) -> None:
        assert sum(backoff(BaseTask, number).total_seconds() for number in range(1, MAX_POSTPONED)) > 8 * 3600
        await kit.queue.push(Play, {"number": 1})
        await change(kit, task="test.removed", attempts=MAX_POSTPONED - 1, max_attempts=MAX_POSTPONED + 2)
        await drain()
        job = (await jobs())[0]
        assert job.status == JobStatus.DEAD
        assert job.last_error == "UnknownTask: no task is registered as 'test.removed': is its module installed here?"

    @pytest.mark.parametrize(
        "error",
        [SystemExit(3), KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()]), Unspeakable(), Ending()],
    )
    async def test_what_would_end_the_process_is_a_failure_like_any_other(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage, error: BaseException
    ) -> None:
        scene.fails("play", error)
        await kit.queue.push(Play, {"number": 1})
        assert await drain() == 1
        job = (await jobs())[0]
        assert job.status == JobStatus.FAILED
        assert (job.last_error or "").startswith(type(error).__name__)

    @pytest.mark.parametrize("status", [JobStatus.CANCELLED, None])
    async def test_what_was_cancelled_or_removed_while_it_ran_is_left_alone(
        self,
        kit: Runtime,
        committed: Database,
        drain: Drain,
        jobs: Jobs,
        scene: Stage,
        capfd: pytest.CaptureFixture[str],
        status: JobStatus | None,
    ) -> None:
        async def meanwhile() -> None:
            if status:
                await change(kit, status=status, finished_at=utcnow())
            else:
                async with kit.database.session_scope() as session:
                    await session.execute(delete(Job))

        scene.scenes["play"] = meanwhile
        await kit.queue.push(Play, {"number": 1})
        assert await drain() == 1
        assert [job.status for job in await jobs()] == ([status] if status else [])
        out = capfd.readouterr().out
        assert "a job was taken away while it ran" in out
        assert "Traceback" not in out

    async def test_what_another_runner_took_over_is_not_written(
        self, kit: Runtime, committed: Database, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        scene.scenes["play"] = lambda: change(kit, attempts=2)  # what another runner's claim does
        await kit.queue.push(Play, {"number": 1})
        await drain()
        job = (await jobs())[0]
        assert (job.status, job.attempts) == (JobStatus.PROCESSING, 2)

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

    async def test_of_a_group_of_errors_each_is_told(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        scene.fails("play", ExceptionGroup("two", [ValueError("token=abcdef"), KeyError("b")]))
        await kit.queue.push(Play, {"number": 1})
        await drain()
        assert (await jobs())[0].last_error == "ExceptionGroup: ValueError: token=[redacted]; KeyError: 'b'"


class TestBackoff:
    def test_doubles_with_jitter_up_to_an_hour(self) -> None:
        class Slow(BaseTask):
            backoff = 10.0

        for attempts, expected in [(1, 10.0), (2, 20.0), (4, 80.0), (40, MAX_BACKOFF_SECONDS)]:
            delays = {backoff(Slow, attempts).total_seconds() for _ in range(50)}
            assert len(delays) > 1
            assert expected * 0.75 <= min(delays)
            assert max(delays) <= expected * 1.25
