"""The way to a worker: wake-ups with row ids, and a Redis that goes away."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from sqlalchemy.engine import make_url
from taskiq import AsyncBroker, BrokerMessage

from app.core.configs import AppConfig
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.background import Background
from app.core.services.events import EventsService
from app.core.services.queue import JobWaker, QueueService, make_broker
from app.core.services.queue.broker import run_once, wake
from tests.core.services.conftest import make_runner, rolled_back, running, until
from tests.core.services.stage import CurtainRaised, Play, Stage

Jobs = Callable[[], Awaitable[Sequence[Job]]]


class RecordingBroker(AsyncBroker):
    """Notes what it is to carry, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.broken = False

    async def kick(self, message: BrokerMessage) -> None:
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
        self.waker = JobWaker(make_runner(kit), self.broker, self.background)
        self.queue = QueueService(lambda: kit.database, self.waker, self.broker, self.background)
        self.events = EventsService(lambda: kit.database, self.waker, self.background)

    async def settle(self) -> None:
        await self.background.close(5)


@pytest.fixture
def elsewhere(kit: Runtime, committed: Database) -> Elsewhere:
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

    async def test_a_lost_wake_up_is_logged_and_loses_no_job(
        self, elsewhere: Elsewhere, jobs: Jobs, capfd: pytest.CaptureFixture[str]
    ) -> None:
        elsewhere.broker.broken = True
        await elsewhere.queue.push(Play, {"number": 1})
        await elsewhere.settle()
        assert "no worker could be woken" in capfd.readouterr().out
        assert [job.status for job in await jobs()] == [JobStatus.PENDING]
        elsewhere.broker.broken = False
        await elsewhere.queue.push(Play, {"number": 2})
        await elsewhere.settle()
        assert len(elsewhere.broker.carried) == 1

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


@asynccontextmanager
async def proxy(port: int, url: str) -> AsyncIterator[None]:
    """Redis at another port, for as long as the block lasts."""
    target = make_url(url)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection(target.host, target.port or 6379)
        open_streams.extend([writer, behind[1]])
        await asyncio.gather(pump(reader, behind[1]), pump(behind[0], writer), return_exceptions=True)

    open_streams: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for stream in open_streams:
            stream.close()
        await asyncio.gather(*(stream.wait_closed() for stream in open_streams), return_exceptions=True)
        await server.wait_closed()


class TestRedis:
    async def test_listening_outlives_a_redis_that_goes_away(
        self, kit: Runtime, unused_tcp_port: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        redis_url = kit.settings.redis_url
        if redis_url is None:
            pytest.skip("needs Redis")
        settings = AppConfig.model_validate(
            {
                "REDIS_URL": f"redis://127.0.0.1:{unused_tcp_port}",
                "REDIS_KEY_PREFIX": f"{kit.settings.REDIS_KEY_PREFIX}proxy:",
            }
        )
        broker = make_broker(settings)
        messages = broker.listen()
        first = asyncio.ensure_future(anext(messages))
        for text in (b"one", b"two"):
            async with proxy(unused_tcp_port, redis_url):
                sender = make_broker(settings)
                await sender.kick(BrokerMessage(task_id="1", task_name="x", message=text, labels={}))
                assert await asyncio.wait_for(first, 20) == text
                await sender.shutdown()
                first = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await broker.shutdown()
        assert "Redis cannot be reached" in capfd.readouterr().out
