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


async def test_a_server_answers_every_request_it_let_in(service: Service) -> None:
    visitors = Visitors(service)
    with service.app() as app:
        crowd = asyncio.create_task(visitors.come(20))
        await until(lambda: visitors.outcomes["answered 200"] > often(100))
        assert await stopped(app) == 0
        await crowd
    tally["requests"] += visitors.outcomes.total()
    assert set(visitors.outcomes) == {"answered 200"}


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
