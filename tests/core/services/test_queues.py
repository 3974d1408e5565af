"""Queues, priorities, limits and pauses: what a claim takes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.configs import AppConfig
from app.core.db.jobs import Job
from app.core.db.session import Database
from app.core.deps import queued
from app.core.exceptions import ConfigError
from app.core.runtime import Runtime
from app.core.services.mail import SendMail
from app.core.services.queue import BaseTask, Limit
from app.core.services.queue.limits import Queues, pause_queue, purge_gates, queue_states
from app.core.services.queue.registry import TaskDataError
from app.core.services.queue.store import MAX_LOST, JobStore, completed
from tests.core.services.conftest import change, make_runner, running, until
from tests.core.services.stage import Play, Say, Stage, stage
from tests.utils import freeze

Jobs = Callable[[], Awaitable[Sequence[Job]]]


@queued
class Call(BaseTask):
    """Calls a provider, one call at a time and three a minute for each account."""

    __task_name__ = "test.call"
    limit = Limit(running=1, starts=3, seconds=60)

    @classmethod
    def _get_limit_key(cls, payload: Mapping[str, Any]) -> str | None:
        return payload["account"] or None

    async def run(self, account: str) -> None:
        """Enter."""
        await stage.enter("call", account)


def make_store(kit: Runtime, *declared: str, only: Sequence[str] = ()) -> JobStore:
    """The claims of one process."""
    return JobStore(lambda: kit.database, timedelta(seconds=600), Queues(10, declared, only))


async def push(kit: Runtime, *accounts: str) -> None:
    for account in accounts:
        await kit.queue.push(Call, {"account": account})


async def accounts(store: JobStore, room: int = 10) -> list[str]:
    return [job.payload["account"] for job in await store.claim(room)]


class TestPriorities:
    async def test_the_higher_is_claimed_first(self, kit: Runtime, db: AsyncSession) -> None:
        for number, priority in enumerate((None, -100, 100, 0)):
            await kit.queue.push(Play, {"number": number}, priority=priority)
        claimed = await make_store(kit).claim(3)
        assert [job.payload["number"] for job in claimed] == [2, 0, 3]

    @pytest.mark.parametrize("priority", [-101, 101])
    async def test_one_out_of_range_is_refused(self, kit: Runtime, db: AsyncSession, priority: int) -> None:
        with pytest.raises(ValueError, match="from -100 to 100"):
            await kit.queue.push(Play, {"number": 1}, priority=priority)


class TestQueues:
    async def test_each_has_slots_of_its_own(self, kit: Runtime, committed: Database, scene: Stage) -> None:
        hold = asyncio.Event()

        async def wait() -> None:
            await hold.wait()

        scene.scenes["play"] = wait
        for number in range(3):
            await kit.queue.push(Play, {"number": number})
        async with running(make_runner(kit, concurrency=1)):
            await until(lambda: scene.values("play") == [0])
            async with kit.database.session_scope() as session:
                session.add(Job(task="test.say", queue="other", payload={"text": "beside"}, max_attempts=1))
            await until(lambda: scene.values("say") == ["beside"])
            assert scene.values("play") == [0]
            hold.set()
            await until(lambda: len(scene.values("play")) == 3)

    def test_a_process_takes_those_it_is_told(self) -> None:
        queues = Queues(10, ["mail:5", "reports:2"], ["mail", "default"])
        assert [queues.slots(name) for name in ("mail", "default", "reports")] == [5, 10, 0]
        assert queues.known(["reports", "sync"]) == ["default", "mail"]
        assert Queues(10, ["mail:5"]).known(["default"]) == ["default", "mail"]

    def test_mails_have_one(self) -> None:
        assert (SendMail.queue, Play.queue) == ("mail", "default")

    async def test_a_paused_one_is_left_alone(self, kit: Runtime, db: AsyncSession) -> None:
        store = make_store(kit)
        await kit.queue.push(Play, {"number": 1})
        assert await pause_queue(db=db, queue="default", paused=True)
        await db.commit()
        assert not await store.any_due(lambda queue, suspect: 1)
        assert await store.claim(1) == []
        await change(kit, suspect=True)
        assert await store.claim(1) == []
        assert not await pause_queue(db=db, queue="default", paused=True)
        await purge_gates(db=db)
        (state,) = await queue_states(db=db)
        assert (state.queue, state.depth, state.due, state.running, state.paused) == ("default", 1, 1, 0, True)
        assert await pause_queue(db=db, queue="default", paused=False)
        await db.commit()
        assert len(await store.claim(1)) == 1

    @pytest.mark.parametrize(
        "setting", ["mail", "mail:0", "Mail:1", "mail:1:max=0", "mail:1:3/m", "mail:1:10/60s:max=2"]
    )
    def test_a_setting_that_cannot_be_read_is_refused(self, setting: str) -> None:
        with pytest.raises(ValidationError, match="write NAME:SLOTS"):
            AppConfig(JOBS_QUEUES=[setting])

    def test_a_task_with_a_name_that_is_none_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="queue = 'Bulk!'"):

            @queued
            class Bulk(Say):
                __task_name__ = "test.bulk"
                queue = "Bulk!"


class TestSuspects:
    async def test_those_of_other_queues_are_not_in_the_way(self, kit: Runtime, db: AsyncSession) -> None:
        row = {"task": "test.play", "payload": {"number": 1}, "max_attempts": 1, "suspect": True}
        await db.execute(insert(Job), [row | {"queue": queue} for queue in ["default"] * (MAX_LOST + 1) + ["mail"]])
        await db.commit()
        room = Queues(1, only=["mail"]).slots
        (job,) = await make_store(kit).claim(lambda queue, suspect: room(queue))
        assert job.queue == "mail"

    async def test_they_are_left_alone_while_there_is_no_room(self, kit: Runtime, db: AsyncSession) -> None:
        await kit.queue.push(Play, {"number": 1})
        await change(kit, suspect=True)
        store = make_store(kit)
        assert await store.any_due(lambda queue, suspect: 1)
        assert not await store.any_due(lambda queue, suspect: 0 if suspect else 1)
        assert not await store.any_due(lambda queue, suspect: 1 if suspect and queue != "default" else 0)


class TestLimits:
    async def test_a_queue_over_all_processes(self, kit: Runtime, db: AsyncSession) -> None:
        for number in range(5):
            await kit.queue.push(Play, {"number": number})
        one, other = make_store(kit, "default:3:max=4"), make_store(kit, "default:3:max=4")
        first = await one.claim(3)
        assert len(await other.claim(3)) == 1
        assert await other.claim(3) == []
        assert await one.record([completed(first[0])])
        assert len(await other.claim(3)) == 1

    async def test_the_rate_of_a_queue(self, kit: Runtime, db: AsyncSession) -> None:
        for number in range(9):
            await kit.queue.push(Play, {"number": number})
        store = make_store(kit, "default:10:4/60s")
        assert len(await store.claim(3)) == 3
        with freeze(timedelta(seconds=30)):
            assert len(await store.claim(9)) == 1
        with freeze(timedelta(seconds=61)):
            assert len(await store.claim(9)) == 3
        with freeze(timedelta(seconds=91)):
            assert len(await store.claim(9)) == 1

    async def test_a_key_holds_up_nobody_else(self, kit: Runtime, db: AsyncSession) -> None:
        await push(kit, "a", "a", "a", "b", "", "")
        store = make_store(kit)
        assert await accounts(store, room=2) == ["a", "b"]
        assert await accounts(store) == ["", ""]
        assert await accounts(store) == []

    async def test_the_rate_of_a_key(self, kit: Runtime, db: AsyncSession) -> None:
        await push(kit, *"aaaaa", "b")
        store = make_store(kit)
        begun = []
        for _ in range(5):
            claimed = await store.claim(1)
            begun += [job.payload["account"] for job in claimed]
            await store.record([completed(job) for job in claimed])
        assert begun == ["a", "a", "a", "b"]
        with freeze(timedelta(seconds=61)):
            assert await accounts(store) == ["a"]

    async def test_claims_side_by_side_keep_them(self, kit: Runtime, committed: Database) -> None:
        await push(kit, *"abcabcabc")
        for number in range(20):
            await kit.queue.push(Play, {"number": number})
        stores = [make_store(kit, "default:10:max=6") for _ in range(8)]
        claimed: list[Job] = []
        for _ in range(3):  # a claim leaves alone what another is claiming at that moment
            for batch in await asyncio.gather(*(store.claim(5) for store in stores)):
                claimed += batch
        assert len(claimed) == 6
        keys = [job.limit_key for job in claimed if job.limit_key]
        assert len(keys) == len(set(keys))

    async def test_a_key_that_cannot_be_stored_is_refused(self, kit: Runtime, db: AsyncSession) -> None:
        with pytest.raises(TaskDataError, match=r"the limit key of test\.call"):
            await push(kit, "a" * 256)

    @pytest.mark.parametrize("values", [{}, {"running": 0}, {"starts": 1001}, {"starts": 1, "seconds": 0}])
    def test_one_that_limits_nothing_is_refused(self, values: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="a limit"):
            Limit(**values)
