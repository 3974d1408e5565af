"""Queues keep apart: poison, a silent mail server, a heap of other work; pauses and limits hold in every process."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from tests.faults.service import Service, strike
from tests.processes import until

SECONDS = 20
"""Ten times what a mail may wait beside other work."""


def store(service: Service, task: str, count: int = 1, *, queue: str = "default", **data: object) -> None:
    """Jobs, by hand."""
    now = utcnow()
    row = {"task": task, "payload": data, "queue": queue, "max_attempts": 2, "available_at": now, "created_at": now}
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

    async def test_a_worker_that_stops_hands_its_suspect_back(self, service: Service) -> None:
        service.settings |= {"JOBS_LEASE_SECONDS": "2", "SHUTDOWN_GRACE_SECONDS": "1"}
        store(service, "faults.work", seconds=600)
        for number in (1, 2):
            with service.runner() as runner:
                await until(lambda: len(service.journal.of("started")) == number)  # noqa: B023
                if number == 1:
                    strike(runner)
        ((_, _, first), (_, _, alone)) = service.journal.of("started")
        assert first != alone
        await until(lambda: not Path(f"/proc/{alone}").exists())
        (job,) = service.jobs("faults.work")
        assert (job.status, job.attempts, job.max_attempts, job.suspect) == (JobStatus.PENDING, 1, 3, True)


class TestIsolation:
    async def test_a_mail_waits_for_no_bulk_work(self, service: Service) -> None:
        service.settings["SHUTDOWN_GRACE_SECONDS"] = "1"
        store(service, "faults.work", 100_000, seconds=600)
        with service.front(), service.runner():
            await until(lambda: len(service.journal.of("started")) == 10)  # every slot of its queue is taken
            assert await service.post("/faults/mails", count=1) == 200
            await until(service.mail.messages, SECONDS)

    async def test_a_silent_mail_server_holds_up_mails_alone(self, service: Service) -> None:
        with silent_server() as port:
            service.settings |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port), "SMTP_TLS": "false"}
            service.settings["SHUTDOWN_GRACE_SECONDS"] = "1"
            with service.front(), service.runner():
                assert await service.post("/faults/mails", count=30) == 200
                await until(lambda: JobStatus.PROCESSING in {job.status for job in service.jobs("core.mail.send")})
                assert await service.post("/faults/marks", name="beside") == 200
                await until(lambda: service.journal.of("marked"), SECONDS)
                assert {job.finished_at for job in service.jobs("core.mail.send")} == {None}


class TestEveryProcess:
    async def test_a_paused_queue_rests_in_all_of_them_until_it_is_resumed(self, service: Service) -> None:
        with service.front(), service.runner(), service.worker():
            service.kit("jobs", "pause", "default")
            assert await service.post("/faults/marks", name="late") == 200
            assert await service.post("/faults/mails", count=20) == 200
            await until(lambda: len(service.mail.messages()) == 20)
            assert not service.journal.of("marked")
            service.kit("jobs", "resume", "default")
            await until(lambda: service.journal.of("marked"))

    async def test_all_of_them_obey_one_limit(self, service: Service) -> None:
        service.settings |= {"JOBS_QUEUES": "default:5:max=2", "JOBS_LEASE_SECONDS": "60"}
        with service.front(), service.runner(), service.worker():
            store(service, "faults.work", 10, seconds=0.2)
            await until(lambda: len(service.journal.of("done")) == 10)
        together = most = 0
        for line in service.journal.path.read_text().splitlines():
            together += {"started": 1, "done": -1}.get(line.split()[0], 0)
            most = max(most, together)
        assert most == 2
        assert len({process for _, _, process in service.journal.of("done")}) <= 2

    async def test_a_worker_takes_the_queues_it_is_told(self, service: Service) -> None:
        with service.front():
            store(service, "faults.healthy", seconds=0)
            store(service, "faults.healthy", queue="bulk", seconds=0)
            service.settings["WORKER_QUEUES"] = "bulk"
            with service.runner():
                await until(lambda: service.journal.of("healthy"))
            assert [job.status for job in service.jobs("faults.healthy")] == [JobStatus.PENDING, JobStatus.COMPLETED]
