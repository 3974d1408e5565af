"""Alive, and able to serve."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.core.db.session import Database
from app.core.runtime import runtime
from tests.core.api.conftest import Serve
from tests.core.api.test_errors import check
from tests.core.log.capture import captured_log


@pytest.fixture
async def http(serve: Serve) -> httpx.AsyncClient:
    return await serve()


@pytest.fixture
def broken_database(app: FastAPI) -> Iterator[None]:
    """A database nobody serves."""
    usual = runtime().database
    runtime().database = Database.connect(make_url("postgresql+psycopg://nobody:hunter2@127.0.0.1:1/nothing"))
    yield
    runtime().database = usual


@pytest.fixture
def broken_redis(app: FastAPI) -> Iterator[None]:
    """A Redis nobody serves."""
    usual = runtime().redis
    runtime().redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
    yield
    runtime().redis = usual


class Stubborn(Database):
    """A database whose driver waits for the server before it lets go of a cancelled statement."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.answers = asyncio.Event()
        self.gave_up = asyncio.Event()

    @asynccontextmanager
    async def session_scope(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        try:
            await asyncio.Event().wait()
            yield self.session(read_only=read_only)
        finally:
            await self.answers.wait()
            self.gave_up.set()


class TestLive:
    async def test_answers(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/health/live")
        assert (answer.status_code, answer.json()) == (200, {"data": {"status": "ok"}})

    @pytest.mark.usefixtures("broken_database", "broken_redis")
    async def test_whatever_else_is_broken(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/health/live")).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
class TestReady:
    async def test_says_what_it_asked(self, http: httpx.AsyncClient, path: str) -> None:
        answer = await http.get(path)
        parts = ["database"] if runtime().redis is None else ["database", "redis"]
        assert answer.status_code == 200
        assert answer.json() == {"data": {"status": "ok", "checks": dict.fromkeys(parts, "ok")}}

    @pytest.mark.usefixtures("broken_database")
    async def test_names_a_database_that_does_not_answer(self, http: httpx.AsyncClient, path: str) -> None:
        with captured_log() as lines:
            answer = await http.get(path)
        body = check(answer, 503, "not_ready")
        assert body["detail"] == "Does not answer: database."
        assert body["checks"]["database"] == "failed"
        assert answer.headers["retry-after"] == "5"
        assert "hunter2" not in answer.text + lines.text
        assert lines.one("a part of the service does not answer")["part"] == "database"

    @pytest.mark.usefixtures("broken_redis")
    async def test_names_a_redis_that_does_not_answer(self, http: httpx.AsyncClient, path: str) -> None:
        body = check(await http.get(path), 503, "not_ready")
        assert body["checks"] == {"database": "ok", "redis": "failed"}

    async def test_does_not_wait_for_what_hangs(self, http: httpx.AsyncClient, path: str) -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        usual = runtime().redis
        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        redis = runtime().redis = Redis(port=port, socket_timeout=60, retry=Retry(NoBackoff(), 0))
        try:
            async with asyncio.timeout(50):
                body = check(await http.get(path), 503, "not_ready")
        finally:
            runtime().redis = usual
            await redis.aclose()
            server.close()
        assert body["checks"]["redis"] == "failed"

    async def test_does_not_wait_for_what_is_slow_to_give_up(self, http: httpx.AsyncClient, path: str) -> None:
        usual = runtime().database
        runtime().database = stubborn = Stubborn(usual.engine)
        try:
            async with asyncio.timeout(50):
                body = check(await http.get(path), 503, "not_ready")
            assert not stubborn.gave_up.is_set()
            stubborn.answers.set()
            await asyncio.wait_for(stubborn.gave_up.wait(), 60)
        finally:
            runtime().database = usual
        assert body["checks"]["database"] == "failed"
