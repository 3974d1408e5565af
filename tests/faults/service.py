"""The service as processes of its own, and what became of the work it was given."""

import asyncio
import itertools
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, NullPool, create_engine, make_url, select
from sqlalchemy.orm import Session

from app.auth.models import User
from app.cli.run import answers
from app.core.db.jobs import Job, JobStatus
from tests.faults.journal import Journal
from tests.processes import Process, environment, free_port, kill, run, started, until, wait_for
from tests.utils import PASSWORD, CapturedMail

ROUNDS = int(os.environ.get("FAULT_ROUNDS") or 0)
"""How many kills, registrations and mails `make faults` asks for; 0 is `make test`, where a few must do."""

_QUICK = {
    "MODULES": "app.*,tests.faults",
    "RATE_LIMITER_ENABLED": "false",
    "PASSWORD_HASH_MEMORY_KIB": "8",
    "PASSWORD_HASH_ROUNDS": "1",
}
_SHORT_LEASE = {"JOBS_LEASE_SECONDS": "1", "JOBS_POLL_SECONDS": "0.2"}
_FINAL = (JobStatus.COMPLETED, JobStatus.DEAD)
AT_ONCE = 8
"""How many requests are under way at the same time."""

tally: "Counter[str]" = Counter()
"""What is said at the end: kills, jobs, losses, the longest recovery."""


class Service:
    """The application on a database of its own: one process embedded, with a worker beside it when served.

    `settings` holds for processes started from then on. `make faults` keeps the default lease and poll.
    """

    def __init__(self, folder: Path, stores: Mapping[str, str]) -> None:
        self.folder = folder
        self.served = bool(stores["REDIS_URL"])
        self.port = free_port()
        self.settings = {
            **_QUICK,
            **({} if ROUNDS else _SHORT_LEASE),
            **stores,
            "WORKER_IN_APP": "false" if self.served else "",
        }
        self.journal = Journal(folder / "var")
        self.mail = CapturedMail(folder / "var" / "mail")
        self.engine = self._engine()
        self._numbers = itertools.count(1)

    def _engine(self) -> Engine:
        url = make_url(self.settings["DATABASE_URL"])
        url = url.set(drivername="postgresql+psycopg" if self.served else "sqlite")
        return create_engine(url, poolclass=NullPool)  # a pool would keep connections that tests end

    def move_database(self, path: Path) -> None:
        """Put the file of SQLite elsewhere; nothing runs yet."""
        shutil.move(str(self.engine.url.database), path)
        self.settings["DATABASE_URL"] = f"sqlite+aiosqlite:///{path}"
        self.engine = self._engine()

    @contextmanager
    def app(self, port: int | None = None, **settings: str) -> Iterator[Process]:
        """A server process that answers, at a port of its own if told; `settings` count for it alone."""
        port = port or self.port
        with self._process("run", PORT=str(port), **settings) as process:
            wait_for(lambda: answers("127.0.0.1", port, "/health/ready") or process.poll() is not None)
            assert process.poll() is None, "the server did not start"
            yield process

    def worker(self, **settings: str) -> AbstractContextManager[Process]:
        """A worker process."""
        return self._process("worker", **settings)

    def scheduler(self, **settings: str) -> AbstractContextManager[Process]:
        """A scheduler process."""
        return self._process("scheduler", **settings)

    def said(self, line: str) -> int:
        """How many of the processes have said it."""
        return sum(line in log.read_text() for log in self.folder.glob("*.log"))

    def runner_beside(self) -> AbstractContextManager[Process | None]:
        """What runs jobs beside the app; embedded it does so itself."""
        return self.worker() if self.served else nullcontext()

    def front(self) -> AbstractContextManager[Process | None]:
        """What takes requests and runs no jobs; embedded there is no such process."""
        return self.app() if self.served else nullcontext()

    def runner(self) -> AbstractContextManager[Process]:
        """What runs the jobs."""
        return self.worker() if self.served else self.app()

    def _process(self, command: str, **settings: str) -> AbstractContextManager[Process]:
        log = self.folder / f"{next(self._numbers)}-{command}.log"
        return started(sys.executable, "-m", "app.cli", command, env=self._environment(**settings), log=log)

    def kit(self, *arguments: str) -> None:
        """A `kit` command that must succeed."""
        run(sys.executable, "-m", "app.cli", *arguments, env=self._environment()).check_returncode()

    def _environment(self, **settings: str) -> dict[str, str]:
        return environment(self.folder, **self.settings | settings)

    def client(self, port: int | None = None, **options: Any) -> httpx.AsyncClient:
        """Requests to the server process, or to what listens at `port`."""
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port or self.port}/api/v1", timeout=120, **options)

    async def post(self, path: str, **body: object) -> int:
        """One request; its status."""
        async with self.client() as http:
            return (await http.post(path, json=body)).status_code

    async def register(self, names: Iterable[str], sent: Callable[[int], None] = lambda number: None) -> dict[str, int]:
        """Register accounts side by side; the status of each that was answered. `sent` hears the number of each."""
        answered: dict[str, int] = {}
        room, numbers = asyncio.Semaphore(AT_ONCE), itertools.count()

        async def one(name: str, http: httpx.AsyncClient) -> None:
            body = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
            async with room:
                sent(next(numbers))
                try:
                    answered[name] = (await http.post("/auth/register", json=body)).status_code
                except httpx.TransportError:
                    return  # no answer: the table says whether the account exists

        async with self.client() as http:
            await asyncio.gather(*(one(name, http) for name in names))
        return answered

    def users(self) -> dict[int, str]:
        """The accounts that were committed, but for the first administrator: addresses by id."""
        with Session(self.engine) as session:
            return {user.id: user.email for user in session.scalars(select(User)) if not user.is_superuser}

    def jobs(self, *tasks: str) -> list[Job]:
        """The rows of these tasks, or all that requests have caused."""
        statement = select(Job).order_by(Job.id)
        chosen = Job.task.in_(tasks) if tasks else Job.request_id.is_not(None)
        with Session(self.engine) as session:
            return list(session.scalars(statement.where(chosen)))

    async def idle(self, seconds: float) -> None:
        """Until every job has come to its end, within `seconds`; says how long it took."""
        began = time.monotonic()
        unfinished = select(Job.id).where(Job.request_id.is_not(None), Job.status.not_in(_FINAL)).limit(1)

        def done() -> bool:
            with Session(self.engine) as session:
                return session.scalar(unfinished) is None

        await until(done, seconds)
        took = time.monotonic() - began
        tally["slowest recovery in ms"] = max(tally["slowest recovery in ms"], round(took * 1000))

    def losses(self, expected: Iterable[object], happened: Iterable[object]) -> list[object]:
        """What should have happened and did not; counted."""
        lost = sorted(set(expected) - set(happened), key=str)
        tally["losses"] += len(lost)
        return lost


def often(few: int) -> int:
    """How often something is done: `few` times, or as often as `make faults` asks for."""
    return ROUNDS or few


def strike(*processes: Process) -> None:
    """`kill -9`, counted."""
    for process in processes:
        kill(process)
    tally["kills"] += len(processes)


def running(stack: ExitStack, process: AbstractContextManager[Process]) -> Process:
    """A process that lives as long as the stack, and is killed then: many would take long to stop."""
    started = stack.enter_context(process)
    stack.callback(kill, started)
    return started
