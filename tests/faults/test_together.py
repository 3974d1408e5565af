"""Two servers, two workers and two schedulers behind one nginx behave as one service."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.conftest import backend
from tests.faults.load import AFTER, KINDS, Load, settle
from tests.faults.routers import LIMIT
from tests.faults.service import ROUNDS, Service, running, strike
from tests.processes import Process, free_port, nginx, served_settings, until
from tests.utils import PASSWORD

pytestmark = [
    pytest.mark.needs("nginx"),
    pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="embedded there is one process"),
]

FORGIVEN = 11
"""Seconds after which nginx asks a server again that refused a connection."""


class Fleet:
    """The processes, and the ports at which they listen."""

    def __init__(self, folder: Path, service: Service, stack: ExitStack) -> None:
        self.service = service
        self._stack = stack
        self.ports = [service.port, free_port()]
        self.proxy = free_port()
        self.apps = [self._running(service.app(port)) for port in self.ports]
        self.workers = [self._running(service.worker()) for _ in range(2)]
        self.schedulers = [self._running(service.scheduler()) for _ in range(2)]
        changes = {
            "server 127.0.0.1:8000;": " ".join(f"server 127.0.0.1:{port};" for port in self.ports),
            "listen 80": f"listen 127.0.0.1:{self.proxy}",
            # As behind another proxy: the clients of a test have addresses of their own.
            "X-Forwarded-For $remote_addr": "X-Forwarded-For $http_x_forwarded_for",
        }
        stack.enter_context(nginx(folder, changes))

    def start(self, number: int) -> None:
        self.apps[number] = self._running(self.service.app(self.ports[number]))

    def _running(self, process: AbstractContextManager[Process]) -> Process:
        return running(self._stack, process)


@pytest.fixture(scope="module")
def fleet(template: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """All of them, for all tests."""
    folder = tmp_path_factory.mktemp("fleet")
    with served_settings() as stores, ExitStack() as stack:
        service = Service(folder, stores)
        service.settings |= {
            "RATE_LIMITER_ENABLED": "true",
            "RATE_LIMITER_TIMEOUT_SECONDS": "10",
            "TRUSTED_PROXIES": "127.0.0.1",
            "JOBS_LEASE_SECONDS": "60",  # eight processes: one that is slow must not lose its jobs
        }
        yield Fleet(folder, service, stack)


async def test_a_limit_counts_what_all_servers_served(fleet: Fleet) -> None:
    both = {process.pid for process in fleet.apps}
    for client in range(1, 60):  # after another test nginx may leave a server alone for a while
        headers = {"X-Forwarded-For": f"192.0.2.{client}"}
        async with fleet.service.client(port=fleet.proxy, headers=headers) as http:
            answers = await asyncio.gather(*(http.get("/faults/limited") for _ in range(LIMIT + 10)))
        assert Counter(answer.status_code for answer in answers) == {200: LIMIT, 429: 10}
        served = {answer.json() for answer in answers if answer.is_success}
        if served == both:
            return
        await asyncio.sleep(0.5)
    pytest.fail(f"only {served} of {both} served")


async def test_who_logs_out_at_one_server_is_logged_out_at_the_other(fleet: Fleet) -> None:
    assert await fleet.service.register(["anna"]) == {"anna": 201}
    first, second = (fleet.service.client(port=port) for port in fleet.ports)
    async with first, second:
        tokens = await first.post("/auth/login", data={"username": "anna", "password": PASSWORD})
        bearer = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
        assert (await second.get("/profile", headers=bearer)).status_code == 200
        assert (await first.post("/auth/logout", headers=bearer)).is_success
        assert (await second.get("/profile", headers=bearer)).status_code == 401


async def test_what_one_server_invalidates_the_other_computes_again(fleet: Fleet) -> None:
    first, second = (fleet.service.client(port=port) for port in fleet.ports)
    async with first, second:
        computed = (await first.get("/faults/cached")).text
        assert (await second.get("/faults/cached")).text == computed
        assert (await first.post("/faults/forget")).json() is True
        again = (await second.get("/faults/cached")).text
        assert again != computed
        assert (await first.get("/faults/cached")).text == again


async def test_each_tick_comes_once_and_goes_on_when_a_scheduler_is_killed(fleet: Fleet) -> None:
    def ticks() -> int:
        return len(fleet.service.jobs("faults.pulse"))

    await until(lambda: ticks() > 2)
    strike(fleet.schedulers[0])
    killed = ticks()
    await until(lambda: ticks() > killed + 2)
    moments = [row.created_at for row in fleet.service.jobs("faults.pulse")]
    assert len(moments) <= (moments[-1] - moments[0]).total_seconds() + 2


async def test_no_client_notices_that_a_server_stops(fleet: Fleet) -> None:
    async with Load.on(fleet.service, port=fleet.proxy) as load:
        load.breaks()
        for round_ in range(min(ROUNDS, 10) or 1):
            await asyncio.sleep(AFTER)
            app = fleet.apps[round_ % 2]
            app.send_signal(signal.SIGTERM)
            await until(lambda app=app: app.poll() is not None)  # type: ignore[misc]  # mypy infers no default's type
            assert app.returncode == 0
            await asyncio.sleep(AFTER)
            await asyncio.to_thread(fleet.start, round_ % 2)
            if ROUNDS:
                await asyncio.sleep(FORGIVEN)
        load.mends()
        await asyncio.sleep(AFTER)
    await settle("one of two servers stopped behind nginx", load)
    assert set(load.outcomes(*KINDS)) == {"200", "201"}
