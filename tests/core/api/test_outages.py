"""PostgreSQL that closes connections, swallows what is sent, or takes too long: bounded, and healed by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import APIRouter
from sqlalchemy import AsyncAdaptedQueuePool, text
from sqlalchemy.engine import URL

from app.cli.serving import Connection
from app.core.db import Database, statements_may_take
from app.core.deps import DBSession
from app.core.runtime import runtime
from app.core.services.queue import BaseTask
from app.core.services.queue.execution import run_task
from app.core.services.queue.registry import RegisteredTask
from tests.conftest import backend
from tests.core.api.conftest import Serve
from tests.core.api.server import serving
from tests.core.api.test_errors import check
from tests.core.log.capture import captured_log
from tests.processes import until

pytestmark = pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="SQLite has no server")

SHORT = 0.3
HANGS = 60

OTHERS = "datname = current_database() AND pid <> pg_backend_pid()"
CLOSE = text(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE {OTHERS}")
RUNNING = text(f"SELECT count(*) FROM pg_stat_activity WHERE {OTHERS} AND state = 'active' AND query LIKE '%pg_sleep%'")

router = APIRouter()


@router.get("/read")
async def read(db: DBSession, seconds: float = 0) -> int:
    return int((await db.execute(text("SELECT pg_backend_pid(), pg_sleep(:seconds)"), {"seconds": seconds})).one()[0])


@router.get("/patient")
async def patient(db: DBSession) -> None:
    with statements_may_take(30):
        await db.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 3 * SHORT})


@router.get("/idle")
async def idle(db: DBSession) -> None:
    """Do nothing in a transaction until the server has ended it."""
    pid = await db.scalar(text("SELECT pg_backend_pid()"))
    other = Database.connect(runtime().database.engine.url)
    async with other.engine.connect() as connection:
        while await connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}):
            await connection.rollback()  # the view shows a transaction the same all the time
            await asyncio.sleep(0.05)
    await other.close()
    await db.execute(text("SELECT 1"))


class Proxy:
    """Forwards to PostgreSQL; `swallow` makes it keep the connections of by then open and forward nothing more."""

    def __init__(self, target: URL) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._dead: set[int] = set()

    @property
    def url(self) -> URL:
        return self.target.set(host="127.0.0.1", port=self.port)

    def swallow(self) -> None:
        self._dead = set(range(1, self.connections + 1))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        there = await asyncio.open_connection(self.target.host, self.target.port or 5432)
        try:
            await asyncio.gather(self._pump(number, reader, there[1]), self._pump(number, there[0], writer))
        finally:
            writer.close()
            there[1].close()

    async def _pump(self, number: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if number not in self._dead:
                sink.write(data)
        sink.close()


@pytest.fixture
async def proxy(committed: Database) -> AsyncIterator[Proxy]:
    proxy = Proxy(committed.engine.url)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()


@contextmanager
def used(database: Database) -> Iterator[None]:
    usual = runtime().database
    runtime().database = database
    try:
        yield
    finally:
        runtime().database = usual


@pytest.fixture
async def through(proxy: Proxy) -> AsyncIterator[Database]:
    """A database behind the proxy, whose statements may take a moment only."""
    database = Database.connect(proxy.url, statement_timeout=SHORT)
    with used(database):
        yield database
    await database.close()


@pytest.fixture
async def http(serve: Serve) -> httpx.AsyncClient:
    return await serve(router)


async def test_what_was_sent_is_swallowed(http: httpx.AsyncClient, through: Database, proxy: Proxy) -> None:
    assert (await http.get("/read")).status_code == 200
    proxy.swallow()
    async with asyncio.timeout(HANGS):
        answer = await http.get("/read")
    check(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert (await http.get("/read")).status_code == 200  # the connections of before are not used again


async def test_an_idle_connection_that_vanished_costs_no_request(http: httpx.AsyncClient, proxy: Proxy) -> None:
    database = Database.connect(proxy.url, idle_seconds=0)
    with used(database):
        assert (await http.get("/read")).status_code == 200
        proxy.swallow()
        async with asyncio.timeout(HANGS):
            assert (await http.get("/read")).status_code == 200
    await database.close()


async def test_idle_connections_that_the_server_closed_cost_no_request(
    http: httpx.AsyncClient, committed: Database
) -> None:
    busy = await asyncio.gather(*(http.get("/read", params={"seconds": 0.2}) for _ in range(5)))
    assert len({answer.json() for answer in busy}) == 5
    async with runtime().database.engine.connect() as connection:
        await connection.execute(CLOSE)
    answers = await asyncio.gather(*(http.get("/read") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}


async def test_a_slow_statement_is_stopped_at_the_server(http: httpx.AsyncClient, through: Database) -> None:
    before = (await http.get("/read")).json()
    async with asyncio.timeout(HANGS):
        check(await http.get("/read", params={"seconds": 2 * HANGS}), 503, "unavailable")
    async with through.engine.connect() as connection:
        running = text(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active'"
            " AND pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert await connection.scalar(running) == 0
    assert (await http.get("/read")).json() == before  # the connection is as good as before


async def test_a_block_may_ask_for_more_time(http: httpx.AsyncClient, through: Database) -> None:
    assert (await http.get("/patient")).status_code == 200


async def test_the_wait_for_a_connection_is_bounded(http: httpx.AsyncClient, committed: Database) -> None:
    database = Database.connect(committed.engine.url, pool_size=1, pool_timeout=SHORT)
    with used(database):
        async with database.engine.connect():
            async with asyncio.timeout(HANGS):
                check(await http.get("/read"), 503, "unavailable")
    await database.close()


class Slow(BaseTask):
    """Takes longer than a statement of a request may."""

    __task_name__ = "outages.slow"

    async def run(self, db: DBSession) -> None:
        await db.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 3 * SHORT})


async def test_a_task_has_its_own_timeout_instead(through: Database) -> None:
    await run_task(RegisteredTask(Slow), {})


async def test_a_transaction_that_lies_idle_is_ended_by_the_server(
    http: httpx.AsyncClient, committed: Database
) -> None:
    database = Database.connect(committed.engine.url, idle_transaction_timeout=SHORT)
    with used(database):
        async with asyncio.timeout(HANGS):
            check(await http.get("/idle"), 503, "unavailable")
            assert (await http.get("/read")).status_code == 200
    await database.close()


@pytest.mark.parametrize("prepared", [True, False])
async def test_nothing_is_set_in_the_session_of_a_pooler(committed: Database, prepared: bool) -> None:
    database = Database.connect(committed.engine.url, prepared_statements=prepared, idle_transaction_timeout=60)
    async with database.session_scope() as session:
        found = await session.scalars(text("SELECT name FROM pg_settings WHERE source = 'session'"))
    names = {"idle_in_transaction_session_timeout", "tcp_keepalives_idle"}
    assert set(found) & names == (names if prepared else set())
    await database.close()


async def is_running(database: Database, wanted: bool) -> None:
    """Until a statement sleeps, or none does. PostgreSQL shows a transaction the same activity for its whole life."""
    async with asyncio.timeout(30):
        while True:
            async with database.session_scope() as db:
                if bool(await db.scalar(RUNNING)) is wanted:
                    return


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_client_that_leaves_cancels_what_it_read_and_not_what_it_writes(
    committed: Database, method: str
) -> None:
    done: list[str] = []
    leaving = APIRouter()

    @leaving.api_route("/slowly", methods=["GET", "POST"])
    async def slowly(db: DBSession) -> None:
        await db.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": HANGS if method == "GET" else 2})
        done.append("ran")

    pool = committed.engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    with used(committed):
        async with serving(Connection, leaving) as port:
            with captured_log() as lines:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"{method} /slowly HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
                await until(lambda: pool.checkedout() == 1)
                await is_running(committed, True)
                writer.close()
                await is_running(committed, False)
                await until(lambda: pool.checkedout() == 0)
                await until(lambda: lines.all("request"))
            assert (lines.one("request")["status"], done) == ((499, []) if method == "GET" else (200, ["ran"]))
            assert "Traceback" not in lines.text
            async with committed.session_scope(read_only=True) as db:
                assert await db.scalar(text("SELECT 1")) == 1
