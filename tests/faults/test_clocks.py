"""Hosts whose clocks are five minutes off: nothing runs twice, nothing waits. The database's clock counts."""

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.db import db_now
from app.core.db.jobs import Job, JobStatus, Schedule
from tests.conftest import backend
from tests.faults.service import Service
from tests.processes import free_port, until, wrong_clock
from tests.utils import PASSWORD

pytestmark = [
    pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="needs hosts that share a database: PostgreSQL"),
    pytest.mark.needs("faketime"),
]

AHEAD = 300
BEHIND = -300


def off(seconds: int) -> dict[str, str]:
    return wrong_clock(f"{seconds:+}s")


async def test_a_worker_that_is_ahead_takes_nothing_from_the_one_that_is_right(service: Service) -> None:
    service.settings |= {"JOBS_LEASE_SECONDS": "60", "JOBS_CONCURRENCY": "8"}
    with service.app(), service.worker(), service.worker(**off(AHEAD)):
        await until(lambda: service.said("worker ready") == 2)
        assert await service.post("/faults/work", count=30, seconds=1) == 200
        await service.idle(120)
    assert {row.status for row in service.jobs("faults.work")} == {JobStatus.COMPLETED}
    started = Counter(job for job, *_ in service.journal.of("started"))
    assert started == {str(row.id): 1 for row in service.jobs("faults.work")}
    assert len({process for *_, process in service.journal.of("started")}) == 2


async def test_jobs_of_an_app_that_is_ahead_begin_at_once(service: Service) -> None:
    with service.app(None, **off(AHEAD)), service.worker():
        assert await service.post("/faults/work", count=10) == 200
        await service.idle(120)  # five minutes, if its clock counted
        assert (await service.register(["ann"])) == {"ann": 201}


async def test_a_worker_that_is_behind_runs_jobs_and_retries(service: Service) -> None:
    with Session(service.engine) as session:
        session.add_all([Job(task="faults.work", payload={}, max_attempts=5) for _ in range(10)])
        session.commit()
    with service.worker(**off(BEHIND)):
        await until(lambda: {job.status for job in service.jobs("faults.work")} == {JobStatus.COMPLETED}, 120)


async def test_a_scheduler_whose_clock_was_ahead_goes_on_when_it_is_right(service: Service, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+1800s")

    def ticks() -> int:
        return len(service.jobs("faults.pulse"))

    with service.scheduler(**wrong_clock(str(clock))):
        await until(lambda: ticks() >= 2)
        with Session(service.engine) as session:
            reached, now = session.execute(
                select(Schedule.reached_at, db_now()).where(Schedule.task == "faults.pulse")
            ).one()
        assert reached <= now
        clock.write_text("+0s")
        before = ticks()
        await until(lambda: ticks() >= before + 2)
    assert len({row.dedup_key for row in service.jobs("faults.pulse")}) == ticks()


async def test_apps_that_differ_share_tokens_grace_and_links(service: Service) -> None:
    port = free_port()
    with service.app(port, **off(AHEAD)), service.app(), service.worker():
        async with service.client(port) as there, service.client() as here:
            assert await service.register(["ann"]) == {"ann": 201}
            tokens = (await there.post("/auth/login", data={"username": "ann", "password": PASSWORD})).json()
            bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
            assert (await here.get("/profile", headers=bearer)).status_code == 200
            for http in (here, there, here):  # twice in the grace of the first exchange
                body = {"refresh_token": tokens["refresh_token"]}
                assert (await http.post("/auth/refresh-token", json=body)).status_code == 200
            for number, http in enumerate((there, here), 1):
                body = {"email": "ann@example.com"}
                assert (await http.post("/auth/restore-password", json=body)).status_code == 202

                def mailed(number: int = number) -> bool:
                    mails = service.mail.to("ann@example.com")
                    return sum("password" in mail["Subject"] for mail in mails) == number

                await until(mailed)
