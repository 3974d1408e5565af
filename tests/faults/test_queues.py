"""Queues keep apart: poison, a silent mail server, a heap of other work; pauses and limits hold in every process."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from tests.faults.service import Service, strike
from tests.processes import until

SECONDS = 20
"""Ten times what a mail may wait beside other work."""


def store(
    service: Service, task: str, count: int = 1, *, queue: str = "default", key: str | None = None, **data: object
) -> None:
    """Jobs, by hand."""
    row = {"task": task, "payload": data, "queue": queue, "limit_key": key, "max_attempts": 2, "available_at": utcnow()}
    with Session(service.engine) as session:
        session.execute(insert(Job), [row] * count)
        session.commit()


@contextmanager
def silent_server() -> Iterator[int]:
    """A mail server that accepts connections and never says a word; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]


class TestPoison:
    @pytest.mark.parametrize("ending", ["exit", "SIGSEGV", "memory"])
    async def test_a_job_that_ends_its_process_harms_no_other(self, service: Service, ending: str) -> None:
        service.settings["JOBS_LEASE_SECONDS"] = "2"
        with service.runner() as first:
            store(service, "faults.poison", ending=ending)
            store(service, "faults.healthy", 9)
            await until(lambda: first.poll() is not None)
        assert len(service.journal.of("begun")) == 9
        with service.runner() as second:
            await until(lambda: all(job.finished_at for job in service.jobs("faults.poison", "faults.healthy")))
            assert second.poll() is None
        (poison,) = service.jobs("faults.poison")
        how = {"exit": "exited with 0", "memory": "was ended by SIGKILL"}.get(ending, f"was ended by {ending}")
        assert (poison.status, poison.last_error) == (
            JobStatus.DEAD,
            f"ProcessLost: the process that ran it alone {how}",
        )
        # Its first run, beside others, cost nobody an attempt.
        assert len(service.journal.of("poisoned")) == 1 + 2
        assert {job.status for job in service.jobs("faults.healthy")} == {JobStatus.COMPLETED}
        assert set(Counter(service.journal.of("healthy")).values()) == {1}
        if ending == "memory":  # where memory ends the job goes before its worker
            assert ("1000",) in service.journal.of("expendable")

    async def test_a_suspect_whose_worker_is_lost_is_not_to_blame(self, service: Service) -> None:
        service.settings["JOBS_LEASE_SECONDS"] = "2"
        store(service, "faults.healthy", seconds=3)
        for number in (1, 2, 3):  # more than it has attempts
            with service.runner() as runner:
                await until(lambda: len(service.journal.of("begun")) == number)  # noqa: B023
                strike(runner)
        with service.runner():
            await until(lambda: service.journal.of("healthy"))
            await until(lambda: service.jobs("faults.healthy")[0].status == JobStatus.COMPLETED)
