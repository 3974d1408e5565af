"""SIGTERM under load: what was begun is answered, finished or handed back, and the process ends well in time."""

import asyncio
import random
import signal
from collections import Counter

import httpx
import pytest

from app.core.db.jobs import JobStatus
from tests.faults.service import Service, often, strike, tally
from tests.processes import Process, until

GRACE = 3
MARGIN = 20
"""What the rest of stopping may take beside the grace time."""


@pytest.fixture(autouse=True)
def grace(service: Service) -> None:
    """Little time to stop in; and a lease that is not up before the test is over."""
    service.settings |= {"SHUTDOWN_GRACE_SECONDS": str(GRACE), "JOBS_LEASE_SECONDS": "600"}


async def stopped(process: Process) -> int:
    """Tell it to stop; its exit code, which must come in time."""
    process.send_signal(signal.SIGTERM)
    await until(lambda: process.poll() is not None, GRACE + MARGIN)
    return process.wait()


async def all_serve(service: Service, processes: int) -> None:
    """Until so many server processes have answered."""
    seen: set[int] = set()
    async with asyncio.timeout(120):
        while len(seen) < processes:
            async with service.client() as http:
                answers = await asyncio.gather(*(http.get("/faults/process") for _ in range(10)))
            seen |= {answer.json() for answer in answers}


class Visitors:
    """Clients that ask again and again until a connection is refused, each time in a new one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.outcomes: Counter[str] = Counter()

    async def come(self, number: int) -> None:
        """So many of them at once."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with self._service.client(limits=limits) as http:
            await asyncio.gather(*(self._ask(http) for _ in range(number)))

    async def _ask(self, http: httpx.AsyncClient) -> None:
        while True:
            try:
                answer = await http.get("/faults/slow", params={"seconds": random.uniform(0, 0.2)})
            except httpx.ConnectError:
                return
            except httpx.TransportError as exc:
                self.outcomes[repr(exc)] += 1
            else:
                self.outcomes[f"answered {answer.status_code}"] += 1


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_server_answers_every_request_it_let_in(service: Service, processes: str) -> None:
    if not service.served and processes != "1":
        pytest.skip("needs PostgreSQL and Redis")
    service.settings["WEB_CONCURRENCY"] = processes
    visitors = Visitors(service)
    with service.app() as app:
        await all_serve(service, int(processes))
        crowd = asyncio.create_task(visitors.come(20))
        await until(lambda: visitors.outcomes["answered 200"] > often(100))
        assert await stopped(app) == 0
        await crowd
    tally["requests"] += visitors.outcomes.total()
    assert set(visitors.outcomes) == {"answered 200"}


async def test_it_serves_on_while_it_is_not_ready_and_then_refuses(service: Service) -> None:
    service.settings["SHUTDOWN_DRAIN_SECONDS"] = "3"
    with service.app() as app:
        app.send_signal(signal.SIGTERM)
        async with service.client(limits=httpx.Limits(max_keepalive_connections=0)) as http:
            ready = f"http://127.0.0.1:{service.port}/health/ready"
            async with asyncio.timeout(60):
                while (answer := await http.get(ready)).status_code == 200:  # noqa: ASYNC110  it tells nobody
                    await asyncio.sleep(0.02)
            assert (answer.status_code, answer.json()["checks"]) == (503, {"shutdown": "failed"})
            answer = await http.get("/faults/slow", params={"seconds": 0})
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            await until(lambda: app.poll() is not None, 60)
            with pytest.raises(httpx.ConnectError):
                await http.get(ready)
    assert app.returncode == 0


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_what_the_grace_is_too_short_for_is_cut_with_a_problem(service: Service, processes: str) -> None:
    if not service.served and processes != "1":
        pytest.skip("needs PostgreSQL and Redis")
    service.settings |= {"SHUTDOWN_GRACE_SECONDS": "1", "WEB_CONCURRENCY": processes}
    with service.app() as app:
        async with service.client() as http, http.stream("GET", "/faults/stream") as stream:
            pieces = stream.aiter_bytes()
            assert await anext(pieces) == b"piece\n"
            slow = asyncio.create_task(http.get("/faults/slow", params={"seconds": 600}))
            await asyncio.sleep(0.5)
            assert await stopped(app) == 0
            answer = await slow
            with pytest.raises(httpx.RemoteProtocolError):
                async for _ in pieces:
                    pass
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.headers["connection"], answer.headers["retry-after"]) == ("close", "1")
    assert answer.json()["code"] == "shutting_down"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_everything_at_once(
    service: Service, processes: str, second: signal.Signals
) -> None:
    if not service.served and processes != "1":
        pytest.skip("needs PostgreSQL and Redis")
    service.settings |= {"SHUTDOWN_GRACE_SECONDS": "600", "WEB_CONCURRENCY": processes}
    with service.app() as app:
        await all_serve(service, int(processes))
        async with service.client() as http, http.stream("GET", "/faults/stream") as stream:
            pieces = stream.aiter_bytes()
            await anext(pieces)
            app.send_signal(signal.SIGTERM)
            await asyncio.sleep(1)
            assert app.poll() is None
            app.send_signal(second)
            await until(lambda: app.poll() is not None, 10)
        with pytest.raises(httpx.ConnectError):
            await service.post("/faults/work")
    assert app.returncode == 128 + second


async def test_no_thread_and_no_blocked_loop_outlasts_the_grace(service: Service) -> None:
    service.settings["SHUTDOWN_GRACE_SECONDS"] = "0"
    with service.app() as app:
        async with service.client() as http:
            blocked = asyncio.create_task(http.get("/faults/blocked", params={"seconds": 600}))
            await asyncio.sleep(0.5)
            app.send_signal(signal.SIGTERM)
            await until(lambda: app.poll() is not None, 60)
            with pytest.raises(httpx.TransportError):
                await blocked
    assert app.returncode != 0


async def test_running_tasks_finish_or_are_handed_back(service: Service) -> None:
    with service.front():
        with service.runner() as runner:
            assert await service.post("/faults/work", count=6, seconds=60) == 200
            await until(lambda: len(service.journal.of("started")) == 6)
            assert await service.post("/faults/work", count=often(10), seconds=0.5) == 200
            await until(lambda: len(service.journal.of("started")) > 6)
            assert await stopped(runner) == 0
        began = {int(job) for job, *_ in service.journal.of("started")}
        ended = {int(job) for job, *_ in service.journal.of("done")}
        rows = {row.id: (row.status, row.attempts) for row in service.jobs("faults.work")}
        assert {rows[job] for job in ended} == {(JobStatus.COMPLETED, 1)}
        assert {rows[job] for job in rows.keys() - ended} == {(JobStatus.PENDING, 0)}
        assert len(began - ended) == 6
        with service.runner() as runner:
            await until(lambda: {int(job) for job, *_ in service.journal.of("started")} == rows.keys())
            strike(runner)
