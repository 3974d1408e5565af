"""Redis is the transport: without it work is found later, and none is lost."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from redis import Redis

from app.core.db.jobs import JobStatus
from tests.conftest import backend
from tests.faults.service import Service, often, strike, tally
from tests.processes import free_port, redis_server, until

pytestmark = [
    pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="needs Redis"),
    pytest.mark.needs("redis-server"),
]


@pytest.fixture
def port(service: Service) -> int:
    """Where the service looks for a Redis of its own."""
    port = free_port()
    service.settings["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    return port


def done(service: Service) -> int:
    return len(service.journal.of("done"))


async def test_registering_works_while_it_is_away(service: Service, port: int, tmp_path: Path) -> None:
    names = [f"user{number}" for number in range(often(15))]
    with service.worker(), redis_server(tmp_path, port) as redis, service.app():

        def sent(number: int) -> None:
            if number == len(names) // 2:
                asyncio.get_running_loop().call_soon(strike, redis)

        answered = await service.register(names, sent)
        assert Counter(answered.values()) == {201: len(names)}
        await service.idle(30)  # found by looking
        with redis_server(tmp_path, port):
            assert await service.register(["late"]) == {"late": 201}
            await service.idle(30)
    users = service.users()
    assert not service.losses(users.values(), (mail["To"] for mail in service.mail.messages()))
    assert Counter(int(user) for (user,) in service.journal.of("heard")) == dict.fromkeys(users, 1)


async def test_what_was_queued_before_any_worker_started_outlives_a_flush(
    service: Service, port: int, tmp_path: Path
) -> None:
    with redis_server(tmp_path, port), service.app():
        assert await service.post("/faults/work", count=often(15)) == 200
        with Redis(port=port, socket_timeout=5) as redis:
            await until(redis.dbsize)  # the announcement has arrived
            redis.flushall()
        with service.worker():
            await service.idle(30)
    rows = service.jobs("faults.work")
    tally["tasks"] += len(rows)
    assert [(row.status, row.attempts) for row in rows] == [(JobStatus.COMPLETED, 1)] * often(15)


async def test_a_worker_on_an_idle_redis_that_restarts_is_still_woken(
    service: Service, port: int, tmp_path: Path
) -> None:
    service.settings["JOBS_POLL_SECONDS"] = "600"
    with service.worker(), redis_server(tmp_path, port) as redis, service.app():
        assert await service.post("/faults/work") == 200
        await until(lambda: done(service) == 1)
        strike(redis)
        with redis_server(tmp_path, port):
            assert await service.post("/faults/work") == 200
            await until(lambda: done(service) == 2)
