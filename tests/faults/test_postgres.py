"""PostgreSQL connections that are cut, and several workers and schedulers on one database."""

import asyncio
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.core.db import db_now
from app.core.db.jobs import Job, JobStatus
from tests.conftest import backend
from tests.faults.service import ROUNDS, Service, often, strike, tally
from tests.processes import Postgres, until

pytestmark = pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="needs PostgreSQL and Redis")

OTHERS = "datname = current_database() AND pid <> pg_backend_pid()"
CUT = text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}")


async def test_cut_connections_lose_no_job_and_no_request(service: Service) -> None:
    count = often(20)
    with service.app(), service.worker():
        assert await service.post("/faults/work", count=count, seconds=0.5) == 200
        await until(lambda: len(service.journal.of("started")) >= count // 2)
        with service.engine.connect() as connection:
            cut = len(connection.execute(CUT).all())
        tally["connections cut"] += cut
        answered = await service.register([f"user{number}" for number in range(20)])
        assert set(answered.values()) <= {201, 503}  # 503: its connection was among them
        assert (await service.register(["late"])) == {"late": 201}
        await service.idle(60)
    rows = service.jobs("faults.work")
    assert {row.status for row in rows} == {JobStatus.COMPLETED}
    done = Counter(int(job) for job, *_ in service.journal.of("done"))
    assert not service.losses((row.id for row in rows), done)
    users = service.users()
    assert Counter(mail["To"] for mail in service.mail.messages()) == Counter(users.values())


async def test_three_workers_and_three_schedulers_do_everything_once(service: Service) -> None:
    service.settings["JOBS_LEASE_SECONDS"] = "60"  # seven processes: one that is slow must not lose its jobs
    with service.app(), ExitStack() as stack:
        others = [stack.enter_context(start()) for start in (service.worker, service.scheduler) for _ in range(3)]
        await until(lambda: service.jobs("faults.pulse"))
        for _ in range(often(20)):
            assert await service.post("/faults/work", count=10, seconds=0.05) == 200
        await until(lambda: len(service.jobs("faults.pulse")) > 3)
        await service.idle(60)
        strike(*others)
    started = service.journal.of("started")
    assert Counter(job for job, *_ in started) == {str(row.id): 1 for row in service.jobs("faults.work")}
    assert len({process for *_, process in started}) > 1
    ticks = [row.created_at for row in service.jobs("faults.pulse")]
    assert len(ticks) <= (ticks[-1] - ticks[0]).total_seconds() + 2


@pytest.mark.needs("postgres")
async def test_what_became_due_while_it_was_stopped_begins_soon_after(tmp_path: Path) -> None:
    own = backend.environment()
    prefix = f"{own['REDIS_KEY_PREFIX']}outage:"
    seconds = 70 if ROUNDS else 4
    with Postgres() as server:
        service = Service(
            tmp_path, {"DATABASE_URL": server.url, "REDIS_URL": own["REDIS_URL"], "REDIS_KEY_PREFIX": prefix}
        )
        service.kit("migrate")
        with service.worker():
            await until(lambda: service.said("worker ready"))
            with Session(service.engine) as session:  # nobody is woken for it
                due = db_now(seconds / 2)
                session.add(Job(task="faults.work", payload={}, max_attempts=5, available_at=due))
                session.commit()
            server.stop(signal.SIGINT)
            await until(lambda: service.said("the jobs table cannot be read: trying again"))
            await asyncio.sleep(seconds)
            server.start()
            back = time.monotonic()
            await until(lambda: service.journal.of("done"))
            tally["slowest beginning after an outage in ms"] = round((time.monotonic() - back) * 1000)
    assert len(service.journal.of("started")) == 1
