"""PgBouncer in transaction mode before PostgreSQL, with fewer connections than there are processes."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.engine import URL

from app.core.db.jobs import JobStatus
from tests.conftest import backend
from tests.faults.service import AT_ONCE, Service, often
from tests.processes import environment, kit, pgbouncer
from tests.utils import PASSWORD

pytestmark = [
    pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="needs PostgreSQL and Redis"),
    pytest.mark.needs("pgbouncer"),
]

CONNECTIONS = 2


@pytest.fixture
def pooled(service: Service, tmp_path: Path) -> Iterator[URL]:
    """The service behind the pooler; its own view of the tables stays direct."""
    url = make_url(service.settings["DATABASE_URL"])
    with pgbouncer(tmp_path, url, default_pool_size=CONNECTIONS) as through:
        service.settings |= {
            "DATABASE_URL": through.render_as_string(hide_password=False),
            "DB_PREPARED_STATEMENTS": "false",
        }
        yield through


async def test_processes_share_the_connections_of_a_pooler(service: Service, pooled: URL) -> None:
    service.settings["WEB_CONCURRENCY"] = "2"
    names = [f"user{number}" for number in range(20)]
    with service.app(), service.worker():
        assert set((await service.register(names)).values()) == {201}
        async with service.client() as http:
            form = {"username": names[0], "password": PASSWORD}
            token = (await http.post("/auth/login", data=form)).json()["access_token"]
            found = await _statuses(http, often(300), {"Authorization": f"Bearer {token}"})
        service.kit("migrate")  # beside the service
        service.kit("migrate")
        await service.idle(60)
    assert found == {200: often(300) // 2, 401: often(300) - often(300) // 2}
    assert {job.status for job in service.jobs()} == {JobStatus.COMPLETED}
    locks = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database WHERE locktype = 'advisory'"
    with service.engine.connect() as connection:
        assert connection.exec_driver_sql(f"{locks} AND datname = current_database()").scalar() == 0


async def _statuses(http: httpx.AsyncClient, count: int, known: dict[str, str]) -> Counter[int]:
    """Ask for a profile `count` times, every other time as nobody."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> int:
        async with room:
            return (await http.get("/profile", headers=known if number % 2 else {})).status_code

    return Counter(await asyncio.gather(*(one(number) for number in range(count))))


async def test_several_migrate_an_empty_database_at_once(tmp_path: Path) -> None:
    url = backend.empty()
    with pgbouncer(tmp_path, url, default_pool_size=CONNECTIONS) as through:
        settings = environment(
            tmp_path, DATABASE_URL=through.render_as_string(hide_password=False), DB_PREPARED_STATEMENTS="false"
        )
        done = await asyncio.gather(*(asyncio.to_thread(kit, "migrate", **settings) for _ in range(4)))
        assert [run.returncode for run in done] == [0, 0, 0, 0], [run.stderr for run in done]
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM alembic_version").scalar() == 1
    engine.dispose()
    backend.drop(url)


@pytest.mark.parametrize(("prepared", "said"), [("true", True), ("false", False)])
def test_doctor_says_what_a_pooler_needs(service: Service, pooled: URL, prepared: str, said: bool) -> None:
    settings = {**service.settings, "DB_PREPARED_STATEMENTS": prepared}
    run = kit("doctor", **settings)
    assert ("DB_PREPARED_STATEMENTS=false, unless it hands out sessions" in run.stdout) is said
    assert run.returncode == 0, run.stdout


def test_doctor_says_nothing_of_a_pooler_where_none_is(service: Service) -> None:
    assert "pooler" not in kit("doctor", **service.settings).stdout
