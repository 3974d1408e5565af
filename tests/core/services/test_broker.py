"""The way to a worker: wake-ups with row ids, and a Redis that goes away."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.exceptions import RedisError
from taskiq import AsyncBroker, BrokerMessage

from app.core.configs import AppConfig
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.background import Background
from app.core.services.events import EventsService
from app.core.services.log.context import correlation
from app.core.services.queue import JobWaker, QueueService, make_broker
from app.core.services.queue.broker import run_once, wake
from tests.core.services.conftest import make_runner, rolled_back, running, until
from tests.core.services.stage import CurtainRaised, Play, Stage
from tests.processes import free_port, redis_server
from tests.utils import key_prefix

Jobs = Callable[[], Awaitable[Sequence[Job]]]


class RecordingBroker(AsyncBroker):
    """Notes what it is to carry, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.broken = False
        self.slow = asyncio.Event()
        self.slow.set()

    async def kick(self, message: BrokerMessage) -> None:
        await self.slow.wait()
        if self.broken:
            raise ConnectionError("Redis is away")
        content = orjson.loads(message.message)
        self.carried.append((message.task_name, content["args"], content["kwargs"]))

    async def listen(self) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError
        yield b""


class Elsewhere:
    """Services of a process whose jobs another process runs."""

    def __init__(self, kit: Runtime) -> None:
        self.broker = RecordingBroker()
        self.background = Background()
        self.runner = make_runner(kit)
        self.waker = JobWaker(self.runner, self.broker, self.background)
        self.queue = QueueService(lambda: kit.database, self.waker, self.broker, self.background)
        self.events = EventsService(lambda: kit.database, self.waker, self.background)

    async def settle(self) -> None:
        await self.background.close(5)


@pytest.fixture
async def elsewhere(kit: Runtime, committed: Database) -> Elsewhere:
    return Elsewhere(kit)


class TestWaking:
    async def test_a_worker_gets_row_ids_and_nothing_else_after_the_commit(
        self, kit: Runtime, elsewhere: Elsewhere, jobs: Jobs
    ) -> None:
        async with kit.database.session_scope():
            await elsewhere.queue.push(Play, {"number": 1})
            elsewhere.events.dispatch(CurtainRaised(act=1))
            await asyncio.sleep(0)
            assert elsewhere.broker.carried == []
        await elsewhere.settle()
        assert elsewhere.broker.carried == [("jobs.wake", [[job.id for job in await jobs()]], {})]

    async def test_nobody_is_woken_for_what_was_rolled_back(self, kit: Runtime, elsewhere: Elsewhere) -> None:
        async with rolled_back(kit.database.session_scope()):
            await elsewhere.queue.push(Play, {"number": 1})
        await elsewhere.settle()
        assert elsewhere.broker.carried == []

    async def test_wake_ups_that_are_lost_are_one_line_and_no_job(
        self, elsewhere: Elsewhere, jobs: Jobs, capfd: pytest.CaptureFixture[str]
    ) -> None:
        elsewhere.broker.broken = True
        for number in range(3):
            await elsewhere.queue.push(Play, {"number": number})
            await elsewhere.settle()
        assert capfd.readouterr().out.count("no worker could be woken") == 1
        assert [job.status for job in await jobs()] == [JobStatus.PENDING] * 3
        elsewhere.broker.broken = False
        await elsewhere.queue.push(Play, {"number": 4})
        await elsewhere.settle()
        assert len(elsewhere.broker.carried) == 1
        elsewhere.broker.broken = True
        await elsewhere.queue.push(Play, {"number": 5})
        await elsewhere.settle()
        assert capfd.readouterr().out.count("no worker could be woken") == 1

    async def test_what_is_committed_while_a_message_is_on_its_way_goes_together(
        self, elsewhere: Elsewhere, jobs: Jobs
    ) -> None:
        elsewhere.broker.slow.clear()
        for number in range(4):
            await elsewhere.queue.push(Play, {"number": number})
        elsewhere.broker.slow.set()
        await elsewhere.settle()
        ids = [job.id for job in await jobs()]
        assert [args for _, args, _ in elsewhere.broker.carried] == [[ids[:1]], [ids[1:]]]

    async def test_the_workers_task_wakes_its_runner(self, kit: Runtime, elsewhere: Elsewhere, scene: Stage) -> None:
        number = await elsewhere.queue.push(Play, {"number": 1})
        assert number is not None
        original, kit.runner = kit.runner, make_runner(kit, poll=60)
        try:
            async with running(kit.runner):
                await wake([number])
                await until(lambda: scene.values("play") == [1])
        finally:
            kit.runner = original

    async def test_what_is_not_durable_travels_as_a_whole(self, elsewhere: Elsewhere) -> None:
        await elsewhere.queue.push(Play, {"number": 1}, durable=False)
        await elsewhere.settle()
        message = {"task": "test.play", "payload": {"number": 1}, "request_id": None, "conversation_id": None}
        assert elsewhere.broker.carried == [("tasks.run_once", [], message)]

    async def test_what_is_not_durable_runs_here_where_jobs_do_and_nobody_may_listen_to_redis(
        self, elsewhere: Elsewhere, scene: Stage
    ) -> None:
        async with running(elsewhere.runner):
            with correlation("request-5", None):
                await elsewhere.queue.push(Play, {"number": 1}, durable=False)
            await elsewhere.settle()
            assert (scene.values("play"), scene.entries[0].ids) == ([1], ("request-5", None))
            assert elsewhere.broker.carried == []
            elsewhere.broker.is_worker_process = True  # this process listens, and so may others
            await elsewhere.queue.push(Play, {"number": 2}, durable=False)
            await elsewhere.settle()
        assert [name for name, *_ in elsewhere.broker.carried] == ["tasks.run_once"]


class TestRunOnce:
    async def test_runs_with_the_ids_of_the_request(self, kit: Runtime, scene: Stage) -> None:
        await run_once("test.play", {"number": 4}, "request-5", "conversation-5")
        assert (scene.values("play"), scene.entries[0].ids) == ([4], ("request-5", "conversation-5"))

    async def test_a_failure_is_logged_and_not_tried_again(
        self, kit: Runtime, scene: Stage, capfd: pytest.CaptureFixture[str]
    ) -> None:
        scene.fails("play", RuntimeError("stuck"))
        await run_once("test.play", {"number": 4})
        await run_once("test.unknown", {})
        out = capfd.readouterr().out
        assert out.count("a task that is not durable failed") == 2
        assert scene.values("play") == [4]


class TestBackground:
    async def test_closing_waits_then_cancels(self) -> None:
        background = Background()
        ended: list[str] = []

        async def work(name: str, seconds: float) -> None:
            try:
                await asyncio.sleep(seconds)
                ended.append(name)
            except asyncio.CancelledError:
                ended.append(f"{name} cancelled")
                raise

        background.spawn(work("short", 0.01), "never")
        background.spawn(work("long", 30), "never")
        await background.close(0.1)
        assert ended == ["short", "long cancelled"]

    async def test_work_of_a_thread_runs_on_the_loop(self) -> None:
        background = Background()
        threads: list[int] = []

        async def work() -> None:
            threads.append(threading.get_ident())

        await asyncio.to_thread(lambda: background.spawn(work(), "never"))
        await background.close(5)
        assert threads == [threading.get_ident()]


@pytest.mark.needs("redis-server")
class TestRedis:
    @pytest.fixture
    def port(self) -> int:
        return free_port()

    @pytest.fixture
    async def broker(self, port: int) -> AsyncIterator[AsyncBroker]:
        """Of a Redis that the test starts and stops."""
        settings = AppConfig.model_validate({"REDIS_URL": f"redis://127.0.0.1:{port}", "REDIS_KEY_PREFIX": "test:"})
        broker = make_broker(settings, key_prefix("test:"))
        yield broker
        await broker.shutdown()

    async def test_both_sides_outlive_restarts(
        self, broker: AsyncBroker, port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        messages = broker.listen()
        with redis_server(tmp_path, port):
            heard = asyncio.ensure_future(anext(messages))
            await broker.kick(message(b"one"))
            assert await asyncio.wait_for(heard, 60) == b"one"
            heard = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)  # listens through the restart
        with redis_server(tmp_path, port):
            await broker.kick(message(b"two"))  # through a connection of before
            assert await asyncio.wait_for(heard, 60) == b"two"
        assert capfd.readouterr().out.count("Redis unavailable") == 1

    async def test_a_redis_that_hangs_does_not_hold_who_publishes(
        self, broker: AsyncBroker, port: int, tmp_path: Path
    ) -> None:
        with redis_server(tmp_path, port) as redis:
            await broker.kick(message(b"one"))
            redis.send_signal(signal.SIGSTOP)
            try:
                begun = time.monotonic()
                with pytest.raises(RedisError):
                    await asyncio.wait_for(broker.kick(message(b"two")), 30)
                assert time.monotonic() - begun < 20  # measured: 2 s
            finally:
                redis.send_signal(signal.SIGCONT)

    async def test_a_quiet_wait_is_no_failure(
        self, broker: AsyncBroker, port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with redis_server(tmp_path, port):
            heard = asyncio.ensure_future(anext(broker.listen()))
            done, _ = await asyncio.wait({heard}, timeout=6)  # beyond redis-py's own limit and one wait of ours
            assert not done
            await broker.kick(message(b"at last"))
            assert await asyncio.wait_for(heard, 60) == b"at last"
        assert "Redis unavailable" not in capfd.readouterr().out


def message(content: bytes) -> BrokerMessage:
    """What carries `content`."""
    return BrokerMessage(task_id="1", task_name="x", message=content, labels={})
