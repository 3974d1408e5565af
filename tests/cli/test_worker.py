"""`kit worker` and `kit scheduler`: they say when they are ready, and go in order when they are told."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, event, make_url, select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from taskiq.kicker import AsyncKicker

from app.core.configs import AppConfig
from app.core.db.engines import prepare_sqlite
from app.core.db.jobs import Job, JobStatus
from app.core.services.queue import make_broker
from app.core.services.queue.broker import RUN_ONCE_TASK
from tests.faults.journal import Journal
from tests.processes import Process, environment, kit, run, served_settings, started, wait_for
from tests.utils import key_prefix


class Stage:
    """A database with jobs, and the processes that run them."""

    def __init__(self, folder: Path, stores: dict[str, str]) -> None:
        self.folder = folder
        self.settings = {**stores, "MODULES": "app.*,tests.faults"}
        self.journal = Journal(folder / "var")
        url = make_url(stores["DATABASE_URL"])
        self.engine = create_engine(url.set(drivername=url.drivername.removesuffix("+aiosqlite")))
        if self.engine.name == "sqlite":
            event.listen(self.engine, "connect", prepare_sqlite)

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
                Job(task="faults.work", payload={"seconds": seconds}, max_attempts=5),
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


class TestCheck:
    """`--check`, with the folder of heartbeats of the test's own."""

    @pytest.fixture(autouse=True)
    def own_folder(self, stage: Stage, tmp_path: Path) -> None:
        stage.settings["TMPDIR"] = str(tmp_path)

    def check(self, stage: Stage, name: str, *options: str, **settings: str) -> CompletedProcess[str]:
        return kit(name, "--check", *options, **(stage.settings | settings))

    @pytest.mark.parametrize("name", ["worker", "scheduler"])
    def test_a_process_whose_loop_hangs_fails_until_it_goes_on(self, stage: Stage, name: str) -> None:
        done = self.check(stage, name)
        assert (done.returncode, done.stderr) == (1, f"No {name} has run on this host.\n")
        with stage.process(name) as process:
            wait_for(lambda: self.check(stage, name).returncode == 0)
            other = self.check(stage, "scheduler" if name == "worker" else "worker")
            assert other.returncode == 1
            process.send_signal(signal.SIGSTOP)
            wait_for(lambda: self.check(stage, name, "--within", "2").returncode == 1)
            done = self.check(stage, name, "--within", "2")
            assert done.stderr.startswith(f"The last heartbeat of a {name} on this host was ")
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: self.check(stage, name).returncode == 0)

    def test_a_worker_that_waits_for_its_database_lives(self, stage: Stage) -> None:
        away = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "JOBS_POLL_SECONDS": "0.1"}
        with stage.process("worker", "--with-schedule", **away):
            wait_for(lambda: "the jobs table cannot be read" in (stage.folder / "out.log").read_text())
            wait_for(lambda: self.check(stage, "worker").returncode == 0)
            assert self.check(stage, "scheduler").returncode == 0

    def test_it_needs_no_settings_and_loads_none_of_the_application(self, stage: Stage, tmp_path: Path) -> None:
        script = "import sys\nfrom app.cli import main\ntry:\n main()\nexcept SystemExit: print(*sys.modules)"
        env = environment(tmp_path, ENVIRONMENT="production", TMPDIR=str(tmp_path))
        command = [sys.executable, "-c", script, "worker", "--check"]
        done = run(*command, env=env)
        assert done.stderr == "No worker has run on this host.\n"
        assert not {"sqlalchemy", "fastapi", "app.core"} & set(done.stdout.split())

    def test_a_heartbeat_that_cannot_be_written_costs_a_line_and_no_job(self, stage: Stage, tmp_path: Path) -> None:
        with stage.process("worker", TMPDIR=str(tmp_path)) as process:
            (beat,) = tmp_path.glob("kit-*-worker")
            process.send_signal(signal.SIGSTOP)
            beat.unlink()
            beat.symlink_to(tmp_path / "elsewhere")
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: "the heartbeat cannot be written" in (stage.folder / "out.log").read_text())
            stage.store()
            wait_for(lambda: stage.statuses("faults.work") == [JobStatus.COMPLETED])
            beat.unlink()
            wait_for(lambda: self.check(stage, "worker").returncode == 0)
        assert not (tmp_path / "elsewhere").exists()
        assert (stage.folder / "out.log").read_text().count("the heartbeat cannot be written") == 1
