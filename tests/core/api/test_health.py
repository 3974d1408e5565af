"""Alive, and able to serve."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType

import httpx
import pytest
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.core.api import HealthCheck
from app.core.configs import PROJECT_ROOT
from app.core.db.session import Database
from app.core.exceptions import ConfigError
from app.core.runtime import module_checks, runtime
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
async def empty_database(committed: Database) -> None:
    """A database nobody has migrated."""
    async with committed.session_scope() as session:
        await session.execute(text("DROP TABLE alembic_version"))


def first_revision() -> str:
    """The oldest revision of the shared timeline."""
    scripts = ScriptDirectory(
        str(PROJECT_ROOT / "migrations"), version_locations=[str(PROJECT_ROOT / "migrations" / "versions")]
    )
    return [script.revision for script in scripts.walk_revisions()][-1]


async def set_revision(database: Database, revision: str) -> None:
    """Have the database say that it is at `revision`."""
    async with database.session_scope() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


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
        self.asked = 0
        self.answers = asyncio.Event()
        self.gave_up = asyncio.Event()

    @asynccontextmanager
    async def session_scope(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        self.asked += 1
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


class TestReady:
    async def test_says_what_it_asked(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/health/ready")
        parts = ["database", "migrations", *(["redis"] if runtime().redis else [])]
        assert answer.status_code == 200
        assert answer.json() == {"data": {"status": "ok", "checks": dict.fromkeys(parts, "ok")}}

    @pytest.mark.usefixtures("broken_database")
    async def test_names_a_database_that_does_not_answer(self, http: httpx.AsyncClient) -> None:
        with captured_log() as lines:
            answer = await http.get("/health/ready")
        body = check(answer, 503, "not_ready")
        assert body["detail"] == "Not ready: database, migrations."
        assert body["checks"]["database"] == "failed"
        assert answer.headers["retry-after"] == "5"
        assert "hunter2" not in answer.text + lines.text
        assert lines.one("a part of the service does not answer")["part"] == "database"

    @pytest.mark.usefixtures("empty_database")
    async def test_a_database_without_tables_is_not_ready(self, http: httpx.AsyncClient) -> None:
        body = check(await http.get("/health/ready"), 503, "not_ready")
        assert body["detail"] == "Not ready: migrations."
        assert body["checks"].items() >= {"database": "ok", "migrations": "failed"}.items()

    async def test_a_database_that_lacks_a_migration_is_not_ready(
        self, http: httpx.AsyncClient, committed: Database
    ) -> None:
        await set_revision(committed, first_revision())
        body = check(await http.get("/health/ready"), 503, "not_ready")
        assert body["checks"]["migrations"] == "failed"

    async def test_a_database_of_newer_code_is_ready(self, http: httpx.AsyncClient, committed: Database) -> None:
        """While a new version is rolled out, the old one must go on serving."""
        await set_revision(committed, "ffffffffffff")
        answer = await http.get("/health/ready")
        assert (answer.status_code, answer.json()["data"]["checks"]["migrations"]) == (200, "ahead")

    @pytest.mark.usefixtures("broken_redis")
    async def test_is_degraded_without_redis(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/health/ready")
        checks = {"database": "ok", "migrations": "ok", "redis": "failed"}
        assert (answer.status_code, answer.json()) == (200, {"data": {"status": "degraded", "checks": checks}})

    async def test_does_not_wait_for_what_hangs(self, http: httpx.AsyncClient) -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        usual = runtime().redis
        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        redis = runtime().redis = Redis(port=port, socket_timeout=60, retry=Retry(NoBackoff(), 0))
        try:
            async with asyncio.timeout(50):
                answer = await http.get("/health/ready")
        finally:
            runtime().redis = usual
            await redis.aclose()
            server.close()
        assert answer.json()["data"]["checks"]["redis"] == "failed"

    async def test_does_not_wait_for_what_is_slow_to_give_up(self, http: httpx.AsyncClient) -> None:
        usual = runtime().database
        runtime().database = stubborn = Stubborn(usual.engine)
        try:
            async with asyncio.timeout(50):
                answers = await asyncio.gather(*(http.get("/health/ready") for _ in range(5)))
            assert not stubborn.gave_up.is_set()
            assert stubborn.asked == 1  # one examination for all who ask at once
            answers.append(await http.get("/health/ready"))
            assert stubborn.asked == 1  # and no other before it has given up
            stubborn.answers.set()
            await asyncio.wait_for(stubborn.gave_up.wait(), 60)
            async with asyncio.timeout(60):
                while stubborn.asked == 1:
                    answers.append(await http.get("/health/ready"))
        finally:
            runtime().database = usual
        assert {check(answer, 503, "not_ready")["checks"]["database"] for answer in answers} == {"failed"}


class Supplier:
    """What a module checks."""

    def __init__(self) -> None:
        self.asked = 0
        self.works = True

    async def answer(self) -> None:
        self.asked += 1
        if not self.works:
            raise OSError("hunter2 does not answer")

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def wait_for_a_cancelled_task(self) -> None:
        task = asyncio.create_task(self.hang())
        task.cancel()
        await task


@dataclass
class Endpoint:
    """Something to ask that has no hash."""

    address: str

    async def __call__(self) -> None:
        """Answer."""


@pytest.fixture
def supplier(app: FastAPI) -> Iterator[Supplier]:
    usual = runtime().checks
    supplier = Supplier()
    runtime().checks = (HealthCheck("shop.supplier", supplier.answer),)
    yield supplier
    runtime().checks = usual


class TestModules:
    async def test_their_checks_are_among_the_components(self, http: httpx.AsyncClient, supplier: Supplier) -> None:
        answer = await http.get("/health/ready")
        assert answer.json()["data"]["checks"]["shop.supplier"] == "ok"
        assert (await http.get("/health/details")).json()["data"]["components"]["shop.supplier"]["status"] == "ok"

    async def test_the_service_is_degraded_where_one_fails(self, http: httpx.AsyncClient, supplier: Supplier) -> None:
        supplier.works = False
        with captured_log() as lines:
            answer = await http.get("/health/ready")
        assert (answer.status_code, answer.json()["data"]["status"]) == (200, "degraded")
        assert answer.json()["data"]["checks"]["shop.supplier"] == "failed"
        assert lines.one("a part of the service does not answer")["part"] == "shop.supplier"

    async def test_it_is_not_ready_without_what_is_essential(self, http: httpx.AsyncClient, supplier: Supplier) -> None:
        runtime().checks = (HealthCheck("shop.ledger", supplier.answer, essential=True),)
        supplier.works = False
        body = check(await http.get("/health/ready"), 503, "not_ready")
        assert body["detail"] == "Not ready: shop.ledger."
        assert (await http.get("/health")).status_code == 503

    async def test_one_that_hangs_keeps_nobody_waiting(self, http: httpx.AsyncClient, supplier: Supplier) -> None:
        runtime().checks = (HealthCheck("shop.supplier", supplier.hang),)
        async with asyncio.timeout(50):
            answer = await http.get("/health/ready")
        assert answer.json()["data"]["checks"] == {
            **dict.fromkeys(answer.json()["data"]["checks"], "ok"),
            "shop.supplier": "failed",
        }

    async def test_one_whose_task_was_cancelled_has_failed(self, http: httpx.AsyncClient, supplier: Supplier) -> None:
        runtime().checks = (HealthCheck("shop.supplier", supplier.wait_for_a_cancelled_task),)
        async with asyncio.timeout(50):
            answer = await http.get("/health/ready")
        assert answer.json()["data"]["checks"]["shop.supplier"] == "failed"

    async def test_one_may_be_any_object_that_can_be_called(self, http: httpx.AsyncClient, supplier: Supplier) -> None:
        runtime().checks = (HealthCheck("shop.supplier", Endpoint("supplier.example")),)
        assert (await http.get("/health/ready")).json()["data"]["checks"]["shop.supplier"] == "ok"

    async def test_they_are_asked_once_a_second_at_most(self, http: httpx.AsyncClient, supplier: Supplier) -> None:
        began = time.monotonic()
        answers = 0
        while supplier.asked < 3:
            assert (await http.get("/health")).status_code == 200
            answers += 1
        assert time.monotonic() - began >= 2
        assert answers > 3

    async def test_they_are_named_after_their_module(self, supplier: Supplier) -> None:
        part = ModuleType("app.shop.health")
        part.__dict__["checks"] = [HealthCheck("supplier", supplier.answer)]
        (check,) = module_checks([part])
        assert (check.name, check.ask, check.essential) == ("shop.supplier", supplier.answer, False)

    @pytest.mark.parametrize(
        "checks",
        [[], ["supplier"], HealthCheck("supplier", Supplier().answer), iter([HealthCheck("one", Supplier().answer)])],
    )
    def test_a_file_without_any_stops_the_start(self, checks: object) -> None:
        part = ModuleType("app.shop.health")
        part.__dict__["checks"] = checks
        with pytest.raises(ConfigError, match=r"app\.shop\.health defines no checks"):
            module_checks([part])

    def test_two_of_one_name_stop_the_start(self, supplier: Supplier) -> None:
        part = ModuleType("app.shop.health")
        part.__dict__["checks"] = [HealthCheck("supplier", supplier.answer), HealthCheck("supplier", supplier.hang)]
        with pytest.raises(ConfigError, match=r"app\.shop\.health defines several checks named supplier"):
            module_checks([part])


class TestSummary:
    async def test_is_nothing_but_ok(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/health")
        assert (answer.status_code, answer.text) == (200, '{"status":"ok"}')

    @pytest.mark.usefixtures("broken_redis")
    async def test_is_ok_without_redis(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})

    @pytest.mark.usefixtures("empty_database")
    async def test_is_unavailable_when_not_ready(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/health")
        assert (answer.status_code, answer.text) == (503, '{"status":"unavailable"}')
        assert answer.headers["retry-after"] == "5"


class TestDetails:
    @pytest.mark.usefixtures("broken_redis")
    async def test_names_every_component(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/health/details")
        data = answer.json()["data"]
        assert (answer.status_code, data["status"]) == (200, "degraded")
        states = {name: component["status"] for name, component in data["components"].items()}
        assert states == {"database": "ok", "migrations": "ok", "redis": "failed"}
        assert all(component["duration_ms"] >= 0 for component in data["components"].values())

    @pytest.mark.usefixtures("broken_database")
    async def test_tells_no_address_and_no_secret(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/health/details")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["data"]["status"] == "unavailable"
        assert not any(word in answer.text for word in ("hunter2", "127.0.0.1", "nobody", "Error"))
