"""`kit run` without its database: alive, not ready, and serving once it appears."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import URL

from app.core.migrations.env import connected
from tests.conftest import backend
from tests.core.api.test_outages import Proxy
from tests.processes import Process, environment, free_port, kit, started, until

KIT = (sys.executable, "-m", "app.cli")

pytestmark = pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="SQLite has no server")


class Stage:
    """A database without a table, which nobody reaches before `appears`."""

    def __init__(self, folder: Path, url: URL) -> None:
        self.log = folder / "run.log"
        self.port, self.db_port = free_port(), free_port()
        self.target = url
        self._proxy = Proxy(url)
        self._folder = folder
        self.settings = {
            "DATABASE_URL": url.set(host="127.0.0.1", port=self.db_port).render_as_string(hide_password=False),
            "REDIS_URL": backend.environment()["REDIS_URL"],
            "REDIS_KEY_PREFIX": f"{backend.environment()['REDIS_KEY_PREFIX']}{url.database}:",
            "PORT": str(self.port),
        }

    def run(self, *arguments: str, **settings: str) -> AbstractContextManager[Process]:
        env = environment(self._folder, **self.settings, **settings)
        return started(*KIT, "run", *arguments, env=env, log=self.log)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._proxy.serve, "127.0.0.1", self.db_port):
            yield

    async def get(self, path: str) -> httpx.Response | None:
        try:
            async with httpx.AsyncClient(timeout=30) as http:
                return await http.get(f"http://127.0.0.1:{self.port}{path}")
        except httpx.TransportError:
            return None

    async def status(self, path: str, status: int) -> httpx.Response:
        """Until the path is answered with this status."""
        async with asyncio.timeout(120):
            while (answer := await self.get(path)) is None or answer.status_code != status:  # noqa: ASYNC110  a server tells nobody
                await asyncio.sleep(0.05)
        return answer


async def stopped(process: Process) -> int:
    """Stop it while the event loop goes on; its exit code."""
    process.send_signal(signal.SIGTERM)
    await until(lambda: process.poll() is not None)
    return process.wait()


@contextmanager
def empty_database() -> Iterator[URL]:
    url = backend.empty()
    try:
        yield url
    finally:
        backend.drop(url)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with empty_database() as url:
        yield Stage(tmp_path, url)


@pytest.mark.parametrize("options", [{}, {"WEB_CONCURRENCY": "2"}, {"arguments": "--reload"}], ids=str)
async def test_it_is_alive_without_its_database_and_serves_when_it_appears(
    stage: Stage, options: dict[str, str]
) -> None:
    arguments = [options.pop("arguments")] if "arguments" in options else []
    with stage.run(*arguments, **options) as process:
        await stage.status("/health/live", 200)
        ready = await stage.status("/health/ready", 503)
        assert ready.json()["checks"] == {"database": "failed", "migrations": "failed"}
        assert ready.json()["detail"] == "Not ready: database, migrations."
        for path in ("/api/v1/profile", "/", "/docs", "/nowhere"):
            answer = await stage.get(path)
            assert answer is not None
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert (answer.json()["code"], answer.headers["retry-after"]) == ("not_ready", "5")
        assert (await stage.status("/health", 503)).json() == {"status": "unavailable"}
        assert (await stage.status("/health/details", 503)).json()["data"]["components"].keys() == {
            "database",
            "migrations",
        }
        await until(lambda: "waiting for the database" in stage.log.read_text())
        await asyncio.sleep(2)  # some tries
        assert process.poll() is None
        async with stage.database():
            await stage.status("/health/ready", 200)
            await until(lambda: "Stop with Ctrl-C" in stage.log.read_text())
            await stage.status("/api/v1/profile", 401)
            assert await stopped(process) == 0
    text = stage.log.read_text()
    assert text.count("waiting for the database") == text.count("the database is ready") == 1
    assert text.count("Password:") == text.count("is running") == 1
    assert "Traceback" not in text, text


async def test_requests_wait_for_a_start_that_meets_no_obstacle(stage: Stage) -> None:
    async with stage.database():
        done = await asyncio.to_thread(kit, "migrate", **stage.settings)
        assert done.returncode == 0, done.stderr
        with stage.run() as process:
            async with asyncio.timeout(120):
                while (answer := await stage.get("/api/v1/profile")) is None:  # noqa: ASYNC110  a server tells nobody
                    await asyncio.sleep(0.05)
            assert answer.status_code == 401
            assert await stopped(process) == 0


async def test_it_can_leave_migrating_to_another(stage: Stage) -> None:
    async with stage.database():
        with stage.run(MIGRATE_ON_START="false") as process:
            ready = await stage.status("/health/ready", 503)
            await until(lambda: "waiting for the database" in stage.log.read_text())
            ready = await stage.status("/health/ready", 503)
            assert ready.json()["checks"] == {"database": "ok", "migrations": "failed"}
            done = await asyncio.to_thread(kit, "migrate", **stage.settings)
            assert done.returncode == 0, done.stderr
            await stage.status("/health/ready", 200)
            await until(lambda: "Password:" in stage.log.read_text())
            assert await stopped(process) == 0


async def test_it_stops_while_it_waits(stage: Stage) -> None:
    with stage.run(WEB_CONCURRENCY="2", ENVIRONMENT="testing") as process:
        await until(lambda: "waiting for the database" in stage.log.read_text())
        assert await stopped(process) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_it_stops_while_another_migrates(stage: Stage, processes: str) -> None:
    settings = {"WEB_CONCURRENCY": processes, "ENVIRONMENT": "testing", "SHUTDOWN_GRACE_SECONDS": "600"}
    async with stage.database():
        with connected(stage.target), stage.run(**settings) as process:
            await until(lambda: "Another process is migrating" in stage.log.read_text())
            assert await stopped(process) == 0
    assert "Traceback" not in stage.log.read_text()


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"database": "nowhere_to_be_found"}, 'database "nowhere_to_be_found" does not exist'),
        ({"username": "nobody_at_all"}, 'role "nobody_at_all" does not exist'),
    ],
)
async def test_a_wrong_address_ends_it_with_one_line(
    stage: Stage, processes: str, change: dict[str, Any], said: str
) -> None:
    async with stage.database():
        url = stage.target.set(host="127.0.0.1", port=stage.db_port, **change)
        stage.settings["DATABASE_URL"] = url.render_as_string(hide_password=False)
        with stage.run(WEB_CONCURRENCY=processes) as process:
            await until(lambda: process.poll() is not None)
    assert process.returncode == 1
    (line,) = stage.log.read_text().splitlines()
    assert said in line
