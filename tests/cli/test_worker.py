"""`kit worker` and `kit scheduler`: they say when they are ready, and go in order when they are told."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from taskiq.kicker import AsyncKicker

from app.core.configs import AppConfig
from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.services.queue import make_broker
from app.core.services.queue.broker import RUN_ONCE_TASK
from tests.faults.journal import Journal
from tests.processes import Process, environment, kit, served_settings, started, wait_for
from tests.utils import key_prefix


class Stage:
    """A database with jobs, and the processes that run them."""

    def __init__(self, folder: Path, stores: dict[str, str]) -> None:
        self.folder = folder
        self.settings = {**stores, "MODULES": "app.*,tests.faults"}
        self.journal = Journal(folder / "var")
        url = make_url(stores["DATABASE_URL"])
        self.engine = create_engine(url.set(drivername=url.drivername.removesuffix("+aiosqlite")))

    @contextmanager
    def process(self, name: str, *arguments: str, **settings: str) -> Iterator[Process]:
        """`kit worker` or `kit scheduler`, ready."""
        log = self.folder / "out.log"
        env = environment(self.folder, **(self.settings | settings))
        with started(sys.executable, "-m", "app.cli", name, *arguments, env=env, log=log) as running:
            wait_for(lambda: f"{name} ready" in log.read_text() or running.poll() is not None)
            yield running
        assert "Traceback" not in log.read_text(), log.read_text()

    def store(self, seconds: float = 0.0) -> None:
        """A job that takes so long, by hand: nobody is woken for it."""
        with Session(self.engine) as session:
            session.add(
                Job(task="faults.work", payload={"seconds": seconds}, max_attempts=5, available_at=utcnow()),
            )
            session.commit()

    def statuses(self, task: str) -> list[JobStatus]:
        with Session(self.engine) as session:
            return list(session.scalars(select(Job.status).where(Job.task == task).order_by(Job.id)))


async def hand_over(task: str, settings: dict[str, str]) -> None:
    """What `push(..., durable=False)` sends."""
    url, prefix = settings["REDIS_URL"], settings["REDIS_KEY_PREFIX"]
    broker = make_broker(AppConfig(REDIS_URL=SecretStr(url), REDIS_KEY_PREFIX=prefix), key_prefix(prefix))
    kicker: AsyncKicker[..., None] = AsyncKicker(RUN_ONCE_TASK, broker, labels={})
    await kicker.kiq(task=task, payload={})
    await broker.shutdown()


@pytest.fixture
def stage(template: URL, tmp_path: Path) -> Iterator[Stage]:
    with served_settings() as stores:
        made = Stage(tmp_path, stores)
        yield made
        made.engine.dispose()


class TestWorker:
    def test_without_redis_it_finds_jobs_by_looking_and_ends_what_it_began(self, stage: Stage) -> None:
        with stage.process("worker", REDIS_URL="", JOBS_POLL_SECONDS="0.1") as worker:
            stage.store(seconds=0.5)
            wait_for(lambda: stage.journal.of("started"))
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=120) == 0
        assert stage.statuses("faults.work") == [JobStatus.COMPLETED]
        said = (stage.folder / "out.log").read_text()
        assert said.count("worker ready") == said.count("REDIS_URL is not set: polling the jobs table") == 1

    async def test_with_redis_it_is_woken_and_a_second_signal_ends_it_at_once(self, stage: Stage) -> None:
        if not stage.settings["REDIS_URL"]:
            pytest.skip("needs Redis")
        with stage.process("worker", JOBS_POLL_SECONDS="600") as worker:
            await hand_over("jobs.purge", stage.settings)
            wait_for(lambda: "completed jobs purged" in (stage.folder / "out.log").read_text())
            data = json.dumps({"seconds": 30})
            done = kit("task", "run", "faults.work", "--data", data, "--queue", **stage.settings)
            assert done.returncode == 0, done.stderr
            wait_for(lambda: stage.journal.of("started"))
            worker.send_signal(signal.SIGTERM)
            wait_for(lambda: "worker stops" in (stage.folder / "out.log").read_text())
            worker.send_signal(signal.SIGTERM)  # the second time: at once
            assert worker.wait(timeout=15) == 128 + signal.SIGTERM
        assert stage.statuses("faults.work") == [JobStatus.PROCESSING]

    def test_it_can_keep_the_schedule_too(self, stage: Stage) -> None:
        with stage.process("worker", "--with-schedule") as worker:
            wait_for(lambda: JobStatus.COMPLETED in stage.statuses("faults.pulse"))
            worker.send_signal(signal.SIGINT)
            assert worker.wait(timeout=120) == 0

    def test_it_refuses_settings_that_are_unfit(self, stage: Stage) -> None:
        done = kit("worker", ENVIRONMENT="production", **stage.settings)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("The settings are not fit for production:\n")


class TestScheduler:
    def test_it_stores_what_is_due_and_runs_nothing(self, stage: Stage) -> None:
        with stage.process("scheduler") as scheduler:
            wait_for(lambda: stage.statuses("faults.pulse"))
            scheduler.send_signal(signal.SIGTERM)
            assert scheduler.wait(timeout=120) == 0
        assert set(stage.statuses("faults.pulse")) == {JobStatus.PENDING}
