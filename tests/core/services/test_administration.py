"""Jobs looked after by hand."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.runtime import Runtime
from app.core.services.queue import PermanentFailure, make_broker
from app.core.services.queue.broker import wake_workers
from app.core.services.queue.store import (
    erase_jobs,
    find_jobs,
    purge_jobs,
    retry_dead_jobs,
    retry_jobs,
    statuses_of,
)
from tests.core.services.stage import Say, Stage

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


async def store(
    db: AsyncSession,
    status: JobStatus,
    *,
    key: str | None = None,
    task: str = "test.play",
    principal: str | None = None,
) -> int:
    """A job of this status, with half its attempts used."""
    finished = None if status in ("pending", "processing", "failed") else utcnow()
    job = Job(
        task=task,
        payload={"number": 1},
        status=status,
        attempts=2,
        max_attempts=4,
        available_at=utcnow() + timedelta(hours=1),
        finished_at=finished,
        dedup_key=key,
        principal=principal,
    )
    db.add(job)
    await db.commit()
    return job.id


class TestFind:
    async def test_newest_first_by_status_and_task(self, db: AsyncSession) -> None:
        for status in ("dead", "failed", "completed", "dead"):
            await store(db, JobStatus(status))
        await store(db, JobStatus.DEAD, task="test.say")
        found = await find_jobs(db=db, statuses=[JobStatus.DEAD, JobStatus.FAILED], task="test.play")
        assert [job.status for job in found] == ["dead", "failed", "dead"]
        assert [job.task for job in await find_jobs(db=db, limit=2)] == ["test.say", "test.play"]


class TestErase:
    async def test_what_has_ended_goes_and_what_must_run_is_counted(self, db: AsyncSession) -> None:
        mine = [await store(db, status, principal="user:1") for status in JobStatus]
        others = [await store(db, JobStatus.COMPLETED, principal="user:11"), await store(db, JobStatus.DEAD)]

        assert await erase_jobs(db=db, principals=["user:1", "mailto:ann@example.com"]) == 3

        left = await statuses_of(db=db, ids=[*mine, *others])
        assert set(left) == {mine[0], mine[1], mine[3], *others}

    async def test_they_are_found_by_an_index(self, committed: Database) -> None:
        async with committed.session_scope() as session:
            values = {"task": "test.play", "payload": {}, "max_attempts": 3, "available_at": utcnow()}
            await session.execute(insert(Job), [{**values, "principal": None} for _ in range(5_000)])
            await session.execute(text("ANALYZE core_jobs"))
        explain = "EXPLAIN QUERY PLAN" if committed.engine.dialect.name == "sqlite" else "EXPLAIN"
        for statement in ("DELETE FROM", "SELECT count(*) FROM"):
            async with committed.engine.connect() as connection:
                query = f"{explain} {statement} core_jobs WHERE principal IN ('user:1', 'user:2')"
                plan = "\n".join(str(row) for row in await connection.exec_driver_sql(query))
            assert "ix_core_jobs_principal" in plan


class TestRetry:
    @pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.DEAD, JobStatus.CANCELLED])
    async def test_what_did_not_end_well_is_due_with_all_its_attempts(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage, status: JobStatus
    ) -> None:
        number = await store(db, status)
        assert await retry_jobs(db=db, ids=[number, 10**6]) == [number]
        await db.commit()
        assert await drain() == 1
        (job,) = await jobs()
        assert (job.status, job.attempts, job.last_error) == (JobStatus.COMPLETED, 1, None)
        assert scene.values("play") == [1]

    @pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.PROCESSING, JobStatus.COMPLETED])
    async def test_what_is_under_way_or_done_is_left_alone(
        self, db: AsyncSession, jobs: Jobs, status: JobStatus
    ) -> None:
        number = await store(db, status)
        assert await retry_jobs(db=db, ids=[number]) == []
        await db.commit()
        assert [(job.status, job.attempts) for job in await jobs()] == [(status, 2)]

    async def test_of_one_key_only_the_latest(self, db: AsyncSession) -> None:
        """The others' work is the latest's by now; two of them unfinished would break the key."""
        older, latest = [await store(db, JobStatus.DEAD, key="invoice-1") for _ in range(2)]
        done = await store(db, JobStatus.DEAD, key="invoice-2")
        await store(db, JobStatus.COMPLETED, key="invoice-2")
        assert await retry_jobs(db=db, ids=[older, latest, done]) == [latest]
        assert await retry_jobs(db=db, ids=[older]) == []
        again = await store(db, JobStatus.FAILED, key="invoice-3")
        assert await retry_jobs(db=db, ids=[again]) == [again]

    async def test_every_dead_one_or_those_of_a_task(self, db: AsyncSession) -> None:
        plays = [await store(db, JobStatus.DEAD) for _ in range(2)]
        say = await store(db, JobStatus.DEAD, task="test.say")
        await store(db, JobStatus.FAILED)
        assert await retry_dead_jobs(db=db, task="test.say") == [say]
        assert await retry_dead_jobs(db=db) == plays

    async def test_a_dead_job_can_be_run_again_after_the_repair(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        scene.fails("say", PermanentFailure("no voice"))
        number = await kit.queue.push(Say, {"text": "to be"})
        assert number is not None
        await drain()
        assert await statuses_of(db=db, ids=[number, number + 1]) == {number: JobStatus.DEAD}
        scene.scenes.clear()
        await retry_jobs(db=db, ids=[number])
        await db.commit()
        await drain()
        assert scene.values("say") == ["to be", "to be"]


class TestPurge:
    async def test_what_is_finished_and_old_goes_and_dead_ones_only_if_told(self, db: AsyncSession, jobs: Jobs) -> None:
        for status in JobStatus:
            await store(db, status)
        assert sum((await purge_jobs(db=db, older_than=timedelta(hours=1), dead=True)).values()) == 0
        assert await purge_jobs(db=db, older_than=timedelta()) == {JobStatus.COMPLETED: 1, JobStatus.CANCELLED: 1}
        assert await purge_jobs(db=db, older_than=timedelta(), dead=True) == {
            JobStatus.COMPLETED: 0,
            JobStatus.CANCELLED: 0,
            JobStatus.DEAD: 1,
        }
        await db.commit()
        assert {job.status for job in await jobs()} == {"pending", "processing", "failed"}


class TestWake:
    async def test_a_redis_that_is_away_costs_no_error(self, kit: Runtime) -> None:
        update = {"REDIS_URL": "redis://127.0.0.1:1/0"}
        broker = make_broker(type(kit.settings).model_validate(kit.settings.model_dump() | update), kit.key_prefix)
        assert not await wake_workers(broker, [1])
        await broker.shutdown()

    async def test_one_that_answers_takes_the_ids(self, kit: Runtime) -> None:
        if kit.redis is None:
            pytest.skip("needs Redis")
        assert await wake_workers(kit.broker, [1])
