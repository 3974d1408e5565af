"""Leases: who may write what became of a job."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.queue.store import JobStore, completed, dead, failed, handed_back, retry_jobs
from tests.core.services.conftest import listening
from tests.core.services.stage import Play
from tests.utils import freeze

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


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
        assert await store.extend([lost]) == set()
        for outcome in (completed(lost), failed(lost, "late", timedelta()), dead(lost, "late"), handed_back(lost)):
            assert not await store.write(outcome)
        assert (await jobs())[0].status == JobStatus.PROCESSING
        assert await store.record([completed(lost), completed(taken)]) == {taken}
        assert not await store.write(completed(taken))

    async def test_an_extended_lease_holds(self, kit: Runtime, db: AsyncSession, store: JobStore) -> None:
        await kit.queue.push(Play, {"number": 1})
        job = (await store.claim(1))[0]
        with freeze(timedelta(seconds=50)):
            assert await store.extend([job]) == {job}
        with freeze(timedelta(seconds=100)):
            assert await store.claim(1) == []

    async def test_the_first_loss_of_a_process_is_given_back_the_others_are_not(
        self, kit: Runtime, db: AsyncSession, store: JobStore, due: Due, jobs: Jobs
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        for number in range(Play.max_attempts + 1):
            (job,) = await store.claim(1)
            assert job.suspect is (number > 0)
            await due()
        assert await store.claim(1) == []
        job = (await jobs())[0]
        assert job.status == JobStatus.DEAD
        assert job.last_error == "LeaseExpired: the process running it was lost in attempt 4"

    async def test_suspects_have_a_room_of_their_own(
        self, kit: Runtime, db: AsyncSession, store: JobStore, due: Due
    ) -> None:
        for number in range(3):
            await kit.queue.push(Play, {"number": number})
        assert len(await store.claim(3)) == 3
        await due()
        await kit.queue.push(Play, {"number": 3})
        claimed = await store.claim(lambda queue, suspect: 1 if suspect else 5)
        assert [(job.payload["number"], job.suspect) for job in claimed] == [(0, True), (3, False)]

    async def test_what_is_handed_back_can_be_claimed_at_once(
        self, kit: Runtime, db: AsyncSession, store: JobStore
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        job = (await store.claim(1))[0]
        assert await store.write(handed_back(job))
        again = await store.claim(1)
        assert [(found.id, found.attempts) for found in again] == [(job.id, 1)]

    @pytest.mark.parametrize("way", ["handed back", "run again by hand"])
    async def test_an_older_run_with_the_same_number_of_attempts_writes_nothing(
        self, kit: Runtime, db: AsyncSession, store: JobStore, jobs: Jobs, way: str
    ) -> None:
        number = await kit.queue.push(Play, {"number": 1})
        assert number is not None
        older = (await store.claim(1))[0]
        if way == "handed back":
            assert await store.write(handed_back(older))
        else:
            with freeze(timedelta(seconds=61)):
                newer = (await store.claim(1))[0]
                assert await store.write(dead(newer, "given up"))
            assert await retry_jobs(db=db, ids=[number]) == [number]
            await db.commit()
        with freeze(timedelta(seconds=62)):
            taken = (await store.claim(1))[0]
            assert (taken.id, taken.attempts) == (older.id, older.attempts)
            assert await store.extend([older]) == set()
            for outcome in (completed(older), handed_back(older)):
                assert not await store.write(outcome)
            assert await store.write(completed(taken))

    async def test_claims_side_by_side_share_no_job(self, kit: Runtime, committed: Database, store: JobStore) -> None:
        async with kit.database.session_scope():
            for number in range(30):
                await kit.queue.push(Play, {"number": number})
        batches = await asyncio.gather(*(store.claim(7) for _ in range(8)))
        ids = [job.id for batch in batches for job in batch]
        assert len(ids) == len(set(ids)) == 30

    @pytest.mark.parametrize("waiting", [{}, {"available_at": timedelta(days=1)}], ids=["due", "not yet due"])
    async def test_many_rows_are_not_looked_at(
        self, committed: Database, store: JobStore, waiting: dict[str, timedelta]
    ) -> None:
        common = {"task": "test.play", "payload": {"number": 1}, "max_attempts": 3, "available_at": utcnow()}
        ended = {"status": JobStatus.COMPLETED, "finished_at": utcnow()}
        later = {name: utcnow() + delay for name, delay in waiting.items()}
        async with committed.session_scope() as session:
            await session.execute(insert(Job), [{**common, **ended} for _ in range(5_000)])
            for priority in (0, 10):
                bulk = {**common, **later, "queue": "bulk", "priority": priority}
                await session.execute(insert(Job), [bulk for _ in range(20_000)])
            await session.execute(insert(Job), [common for _ in range(20)])
            await session.execute(text("ANALYZE core_jobs"))
        sent: list[tuple[str, Any]] = []

        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _: Any, many: bool) -> None:
            sent.append((statement, parameters[0] if many else parameters))

        with listening(committed.engine.sync_engine, "before_cursor_execute", note):
            assert await store.any_due(lambda queue, suspect: 1)
            jobs = await store.claim(10)
            assert Counter(job.queue for job in jobs) == ({"default": 10} if waiting else {"bulk": 10, "default": 10})
            assert await store.extend(jobs) == set(jobs)
            assert await store.record([completed(job) for job in jobs]) == set(jobs)
        asked = [(statement, parameters) for statement, parameters in sent if "core_jobs" in statement]
        claiming = {statement for statement, _ in asked if "available_at <=" in statement}
        assert len(asked) == (7 if waiting else 8)
        async with committed.engine.connect() as connection:
            for statement, parameters in asked:
                plan = await _plan(connection, statement, parameters)
                assert ("ix_core_jobs_claim" in plan) is (statement in claiming), plan
                assert "ANY(queue)" not in plan, plan
                if cost := re.search(r"cost=[\d.]+\.\.([\d.]+)", plan):  # from 100,000 on PostgreSQL compiles it first
                    assert float(cost[1]) < 20_000, plan
                assert not re.search(r"Seq Scan on core_jobs|SCAN core_jobs\w*(?! ?\w* USING)", plan), plan
                if "ORDER BY core_jobs.available_at" in statement:
                    assert not re.search("Sort|TEMP B-TREE", plan), plan


async def _plan(connection: AsyncConnection, statement: str, parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    return "\n".join(str(row) for row in await connection.exec_driver_sql(explain + statement, parameters))
