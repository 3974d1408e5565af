"""`kit jobs` and `kit task`: tables for people, JSON for programs, one line where something is wrong."""

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, event, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from app.core.db.base import utcnow
from app.core.db.engines import prepare_sqlite
from app.core.db.jobs import Job, JobStatus
from tests.processes import kit, served_settings

Kit = Callable[..., "subprocess.CompletedProcess[str]"]

TASK = "auth.send_verification"
STATUSES = (JobStatus.PENDING, JobStatus.PROCESSING, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.DEAD)


@pytest.fixture
def stores(template: URL) -> Iterator[dict[str, str]]:
    """Settings that name a database of the test's own."""
    with served_settings() as settings:
        yield settings


@pytest.fixture
def run(stores: dict[str, str], tmp_path: Path) -> Kit:
    """Run a `kit` command on that database."""

    def call(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return kit(*arguments, VAR_DIR=str(tmp_path), **(stores | settings))

    return call


@pytest.fixture
def table(stores: dict[str, str]) -> Iterator[Session]:
    """The table of jobs: one of each status, with ids from 1."""
    url = make_url(stores["DATABASE_URL"])
    engine = create_engine(url.set(drivername=url.drivername.removesuffix("+aiosqlite")))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", prepare_sqlite)
    with Session(engine) as session:
        for number, status in enumerate(STATUSES, start=1):
            finished = utcnow() if status in ("completed", "dead") else None
            values = {"payload": {"user_id": number}, "available_at": utcnow(), "finished_at": finished}
            error = "LookupError: no [red]user[/red] \x1b[31m" if status == "dead" else None
            session.add(Job(task=TASK, status=status, attempts=1, max_attempts=5, last_error=error, **values))
        session.commit()
        yield session
    engine.dispose()


def ok(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command that went well says: no traceback, nothing but its answer on the standard output."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout
    return done.stdout


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line of what a command says that ends with 1."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def statuses(table: Session) -> list[str]:
    table.rollback()
    return [status.value for status in table.scalars(select(Job.status).order_by(Job.id))]


class TestLooking:
    def test_a_list_for_people_and_for_programs(self, run: Kit, table: Session) -> None:
        data = {"event": "user_created", "listener": "app.audit.listeners:keep"}
        table.add(Job(task="events.listen", max_attempts=5, payload=data, available_at=utcnow()))
        table.commit()
        heading, heard, *lines = ok(run("jobs", "list")).splitlines()
        assert heard.split()[:5] == ["6", "user_created", "->", "app.audit.listeners:keep", "pending"]
        assert heading.split()[:4] == ["ID", "TASK", "STATUS", "ATTEMPTS"]
        assert [line.split()[:4] for line in lines] == [
            [str(number), TASK, status, "1/5"] for number, status in reversed(list(enumerate(STATUSES, start=1)))
        ]
        assert "LookupError: no [red]user[/red] \\x1b[31m" in lines[0]
        arguments = ("--status", "dead", "--status", "failed", "--task", TASK, "--limit", "1")
        (job,) = json.loads(ok(run("jobs", "list", *arguments, "--json")))
        assert (job["id"], job["status"], job["attempts"]) == (5, "dead", 1)
        assert "payload" not in job
        assert (job["event"], job["listener"]) == (None, None)
        assert datetime.fromisoformat(job["created_at"]).tzinfo

    def test_the_run_of_a_listener_says_what_it_hears(self) -> None:
        data = {"event": "user_created", "listener": "app.audit.listeners:keep", "data": {"id": 1}}
        assert Job(task="events.listen", payload=data).heard == {name: data[name] for name in ("event", "listener")}
        assert Job(task="shop.sell", payload=data).heard == {"event": None, "listener": None}

    def test_one_with_its_data(self, run: Kit, table: Session) -> None:
        assert json.loads(ok(run("jobs", "show", "2", "--json")))["payload"] == {"user_id": 2}
        assert refused(run("jobs", "show", "7")) == "There is no job 7."

    def test_a_status_that_is_none(self, run: Kit) -> None:
        assert refused(run("jobs", "list", "--status", "done")) == (
            "There is no status done: it is one of pending, processing, completed, failed, dead, cancelled."
        )


class TestQueues:
    def test_they_are_listed_and_paused(self, run: Kit, table: Session) -> None:
        table.add(Job(task=TASK, queue="mail", priority=7, max_attempts=5, payload={}, available_at=utcnow()))
        table.commit()
        assert ok(run("jobs", "pause", "mail")) == "Queue mail is paused.\n"
        assert ok(run("jobs", "pause", "mail")) == "Queue mail was paused already.\n"
        states = {state["queue"]: state for state in json.loads(ok(run("jobs", "queues", "--json")))}
        assert {name: states["mail"][name] for name in ("depth", "due", "running", "paused")} == {
            "depth": 1,
            "due": 1,
            "running": 0,
            "paused": True,
        }
        assert datetime.fromisoformat(states["mail"]["oldest"]).tzinfo
        assert [states["default"][name] for name in ("depth", "due", "running", "paused")] == [3, 2, 1, False]
        heading, *lines = ok(run("jobs", "queues")).splitlines()
        assert heading.split() == ["QUEUE", "UNFINISHED", "DUE", "RUNNING", "OLDEST", "WAITS"]
        assert [line.split()[0] for line in lines] == ["default", "mail"]
        assert lines[1].split()[-1] == "paused"
        (job,) = json.loads(ok(run("jobs", "list", "--queue", "mail", "--json")))
        assert (job["queue"], job["priority"]) == ("mail", 7)
        assert ok(run("jobs", "resume", "mail")) == "Queue mail is not paused.\n"
        assert refused(run("jobs", "pause", "Mail!")).startswith("'Mail!' cannot be a queue")


class TestDeciding:
    def test_run_again(self, run: Kit, table: Session, stores: dict[str, str]) -> None:
        done = run("jobs", "retry", "4", "9")
        assert refused(done) == "There is no job 9."
        told = "A worker is told." if stores["REDIS_URL"] else "Whoever runs jobs finds them at the next look."
        assert done.stdout.splitlines()[:2] == ["Job 4 is due now.", told]
        assert "Job 5 is due now." in ok(run("jobs", "retry", "--all-dead", "--task", TASK, REDIS_URL=""))
        assert statuses(table) == ["pending", "processing", "completed", "pending", "pending"]
        assert ok(run("jobs", "retry", "3")).startswith("Nothing to run again.\nJob 3 is completed: not run again")

    def test_cancel(self, run: Kit, table: Session) -> None:
        done = run("jobs", "cancel", "1", "2", "4", "9")
        assert refused(done) == "There is no job 9."
        assert done.stdout == "2 jobs are cancelled.\nJob 2 is processing: not cancelled.\n"
        assert statuses(table) == ["cancelled", "processing", "completed", "cancelled", "dead"]

    def test_purge(self, run: Kit, table: Session) -> None:
        said = ok(run("jobs", "purge", "--older-than", "0d", "--dead"))
        assert said == "Removed: 1 completed, 0 cancelled, 1 dead.\n"
        assert statuses(table) == ["pending", "processing", "failed"]

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (("retry", "1", "--all-dead"), "Name the jobs by id, or give --all-dead, with --task if wished."),
            (("purge", "--older-than", "soon"), "'soon' is no age: write 7d, 12h or 30m."),
        ],
    )
    def test_what_is_not_meant_is_said_in_one_line(self, run: Kit, arguments: tuple[str, ...], line: str) -> None:
        assert refused(run("jobs", *arguments)) == line


class TestTask:
    def test_the_list_says_what_each_takes(self, run: Kit) -> None:
        described = {task["name"]: task for task in json.loads(ok(run("task", "list", "--json")))}
        assert described["auth.send_email_change"]["data"][:2] == ["user_id: int | None", "stamp: int = 0"]
        assert described["jobs.purge"]["schedule"] == "17 * * * * UTC"
        assert described["core.mail.send"]["max_attempts"] == 30

    def test_one_is_run_here_and_now(self, run: Kit, table: Session) -> None:
        assert ok(run("task", "run", "jobs.purge", JOBS_KEEP_DAYS="0")) == "null\n"
        assert statuses(table) == ["pending", "processing", "failed", "dead"]

    def test_or_stored_for_whoever_runs_jobs(self, run: Kit, table: Session) -> None:
        number = json.loads(ok(run("task", "run", TASK, "--data", '{"user_id": 7}', "--queue")))
        table.rollback()
        job = table.get_one(Job, number)
        assert (job.task, job.payload, job.status) == (TASK, {"user_id": 7}, JobStatus.PENDING)

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (("jobs.purg",), "There is no task 'jobs.purg'; did you mean jobs.purge?"),
            (("jobs.purge", "--data", "{"), "--data is no JSON: "),
            ((TASK,), f"data for task {TASK} does not fit: user_id: Field required. It takes: user_id: int | None, "),
        ],
    )
    def test_what_cannot_be_run_is_said_in_one_line(self, run: Kit, arguments: tuple[str, ...], line: str) -> None:
        done = run("task", "run", *arguments)
        assert done.stdout == ""
        assert refused(done).startswith(line)

    def test_so_is_a_failure(self, run: Kit) -> None:
        data = {"listener": "app.gone:hear", "event": "gone", "event_id": str(uuid4()), "occurred_at": 0, "data": {}}
        line = refused(run("task", "run", "events.listen", "--data", json.dumps(data)))
        assert line.startswith("events.listen failed: UnknownListener: no listener is called 'app.gone:hear'")


def test_tables_that_are_missing_are_named_with_what_makes_them(run: Kit, table: Session) -> None:
    table.execute(text("DROP TABLE core_jobs"))
    table.commit()
    line = refused(run("jobs", "list"))
    assert "core_jobs" in line
    assert line.endswith("Run `kit migrate`.")
