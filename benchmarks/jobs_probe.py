"""Measures jobs in the environment it is started in: `python -m benchmarks.jobs_probe SIZES` prints JSON.

It is the app. Where there is Redis, jobs run in a worker process it starts; otherwise in this process.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from redis.asyncio import Redis
from sqlalchemy import delete, func, select, text
from sqlalchemy.engine import make_url

from app.auth.models import User
from app.core.configs import get_settings
from app.core.db.jobs import Job
from app.core.db.session import Database, on_commit
from app.core.runtime import Runtime, open_runtime
from app.core.services.log import configure_logging
from app.core.services.queue.registry import tasks
from app.core.services.queue.store import JobStore, handed_back, new_job
from benchmarks.jobs_tasks import Measured, Nothing, Stamp, Tally
from benchmarks.memory import resident_mib

WORKER = (sys.executable, "-m", "taskiq", "worker", "app.worker:broker", "benchmarks.jobs_tasks", "--workers", "1")

_CLAIMS_A_CONNECTION = 20

_FILL = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)"
    " INSERT INTO core_jobs ({columns}) SELECT {values} FROM n",
    "postgresql": "INSERT INTO core_jobs ({columns}) SELECT {values} FROM generate_series(1, :rows) AS i",
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int = 7
    transactions: int = 300
    stamps: int = 500
    burst: int = 5_000
    completed_rows: int = 1_000_000
    claims: int = 300
    memory_jobs: int = 100_000


def say(what: str) -> None:
    """Progress, beside the result."""
    print(f"  {what}", file=sys.stderr, flush=True)


async def measure(sizes: Sizes, second_url: str, folder: Path) -> dict[str, Any]:
    """Every row, one after the other."""
    settings = get_settings()
    configure_logging(settings)
    async with open_runtime(settings, run_jobs=False) as kit:
        say("dispatch")
        found: dict[str, Any] = {"dispatch": await dispatch(kit, sizes)}
        say("claim, outcome")
        found |= await claim(kit, Database.connect(make_url(second_url)), sizes)
        say("throughput")
        found["throughput"] = await throughput(kit, sizes, folder)
        async with running(kit):
            say("latency")
            found["latency"] = await latency(kit, sizes, folder)
            say("memory")
            found["memory"] = await memory(kit, sizes, folder)
        await clear(kit)
    return found


async def dispatch(kit: Runtime, sizes: Sizes) -> dict[str, float]:
    """A transaction that inserts an account, with and without a dispatch to one durable listener, in turn."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(sizes.transactions):
        for dispatches in (number % 2 == 0, number % 2 != 0):
            begun = time.perf_counter()
            async with kit.database.session_scope() as session:
                session.add(account(f"bench{number}{dispatches}"))
                if dispatches:
                    kit.events.dispatch(Measured(number=number))
            seconds[dispatches].append(time.perf_counter() - begun)
    await clear(kit)
    without, with_one = (statistics.median(seconds[dispatches]) * 1e6 for dispatches in (False, True))
    return {"without_us": without, "with_us": with_one, "ratio": with_one / without}


def account(name: str) -> User:
    """One nobody can log in to."""
    return User(email=name, email_key=name, username=name, username_key=name, password_hash="none")


async def claim(kit: Runtime, full: Database, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Claiming ten of a hundred jobs that are due, and recording what became of them, in turn in two tables.

    One has no completed rows, the other many.

    The tenth percentile of connections of several rounds. A connection to SQLite is a thread, and one that shares its
    core with something else takes several times as long: the median of one pair told that, not the table.
    """
    await complete_rows(full, sizes.completed_rows)
    seconds: dict[Database, list[tuple[float, float]]] = {kit.database: [], full: []}
    for database in seconds:
        async with database.session_scope() as session:
            session.add_all(new_job(tasks.of(Nothing), {}) for _ in range(100))
    for number in range(sizes.claims):
        if number % _CLAIMS_A_CONNECTION == 0:  # the first time it puts what filled the table out of SQLite's log, too
            for database in seconds:
                await database.close()
                await claim_ten(database)
        for database in seconds if number % 2 else reversed(seconds):
            seconds[database].append(await claim_ten(database))
    await clear(kit)
    await full.close()
    found = {}
    for number, name in enumerate(("claim", "outcome")):
        empty_us, full_us = (
            sorted(pair[number] for pair in pairs)[len(pairs) // 10] * 1e6 for pairs in seconds.values()
        )
        found[name] = {
            "completed_rows": sizes.completed_rows,
            "without_us": empty_us,
            "with_us": full_us,
            "ratio": full_us / empty_us,
        }
    return found


async def claim_ten(database: Database) -> tuple[float, float]:
    """Claim ten jobs and hand them back; how long each took."""
    store = JobStore(partial(_same, database), timedelta(seconds=60))
    begun = time.perf_counter()
    jobs = await store.claim(10)
    claimed = time.perf_counter()
    await store.record([handed_back(job) for job in jobs])
    return claimed - begun, time.perf_counter() - claimed


def _same(database: Database) -> Database:
    return database


async def complete_rows(database: Database, rows: int) -> None:
    """As if so many jobs had been run."""
    values = {
        "task": "'benchmarks.nothing'",
        "payload": "'{}'",
        "status": "'completed'",
        "attempts": "1",
        "max_attempts": "5",
        **dict.fromkeys(("available_at", "started_at", "finished_at", "created_at", "updated_at"), "CURRENT_TIMESTAMP"),
    }
    fill = _FILL[database.engine.dialect.name].format(columns=", ".join(values), values=", ".join(values.values()))
    async with database.session_scope() as session:
        await session.execute(text(fill), {"rows": rows})
        await session.execute(text("ANALYZE core_jobs"))


async def throughput(kit: Runtime, sizes: Sizes, folder: Path) -> dict[str, float]:
    """How fast one worker gets through a burst of jobs, and of the same task pushed with `durable=False`."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    for number in range(sizes.rounds):
        for durable in (True, False):
            report = folder / f"tally-{number}-{durable}"
            async with kit.database.session_scope():
                for _ in range(sizes.burst):
                    await kit.queue.push(Tally, {"total": sizes.burst, "report": report}, durable=durable)
            if not durable and kit.redis:  # all of it before a worker is there
                await until_redis_holds(kit, sizes.burst)
            async with running(kit):
                rates[durable].append((await reported(report))["per_second"])
        await clear(kit)
    light, jobs = (statistics.median(rates[durable]) for durable in (False, True))
    ratios = sorted(one / other for one, other in zip(rates[True], rates[False], strict=True))
    return {
        "jobs_per_second": jobs,
        "light_per_second": light,
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }


async def until_redis_holds(kit: Runtime, messages: int) -> None:
    """Wait for the background to have pushed them."""
    # A client of its own: that of the service gives up after 0.2 s.
    async with Redis.from_url(str(kit.settings.redis_url), socket_timeout=60) as redis, asyncio.timeout(300):
        while await redis.llen(f"{await kit.key_prefix.get()}jobs") < messages:  # noqa: ASYNC110  a server is waited for
            await asyncio.sleep(0.02)


async def latency(kit: Runtime, sizes: Sizes, folder: Path) -> dict[str, float]:
    """From the commit to the run, one job at a time while nothing else is due."""
    report = folder / "stamps"
    report.touch()
    committed: list[float] = []
    for number in range(sizes.stamps + 1):
        async with kit.database.session_scope() as session:
            on_commit(session, lambda: committed.append(time.time()))
            await kit.queue.push(Stamp, {"report": report})
        async with asyncio.timeout(60):
            while len(report.read_text().splitlines()) <= number:  # noqa: ASYNC110  another process writes it
                await asyncio.sleep(0.005)
    ran = [float(line) for line in report.read_text().splitlines()]
    waits = [(end - begin) * 1e3 for begin, end in zip(committed, ran, strict=True)]
    waits = sorted(waits[1:])  # the first waited for the worker to start
    return {"p50_ms": waits[len(waits) // 2], "p99_ms": waits[int(len(waits) * 0.99)]}


async def memory(kit: Runtime, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """What app and worker hold while they push and run very many jobs."""
    await kit.queue.push(Tally, {"total": 1, "report": folder / "worker"})
    pids = {"app": os.getpid(), "worker": (await reported(folder / "worker"))["pid"]}
    if not kit.redis:
        del pids["worker"]  # it is the app
    samples: dict[str, list[float]] = {name: [] for name in pids}
    step = max(sizes.memory_jobs // 100, 1)
    for _ in range(0, sizes.memory_jobs, step):
        async with kit.database.session_scope():
            for _ in range(step):
                await kit.queue.push(Nothing)
        await until_few_are_left(kit, step)
        for name, pid in pids.items():
            samples[name].append(resident_mib(pid))
    fifth = max(len(samples["app"]) // 5, 1)
    return {"jobs": sizes.memory_jobs} | {
        name: {"first_mib": statistics.mean(seen[:fifth]), "last_mib": statistics.mean(seen[-fifth:])}
        for name, seen in samples.items()
    }


async def until_few_are_left(kit: Runtime, few: int) -> None:
    """Let the worker keep pace."""
    waiting = select(func.count()).select_from(Job).where(Job.finished_at.is_(None))
    async with asyncio.timeout(300):
        while True:
            async with kit.database.session_scope(read_only=True) as session:
                if (await session.scalar(waiting) or 0) <= few:
                    return
            await asyncio.sleep(0.02)


async def reported(report: Path) -> dict[str, Any]:
    """What a tally says, once it is there."""
    async with asyncio.timeout(300):
        while not report.exists():  # noqa: ASYNC110, ASYNC240  another process writes it
            await asyncio.sleep(0.02)
    found: dict[str, Any] = json.loads(report.read_text())  # noqa: ASYNC240  a small local file
    return found


async def clear(kit: Runtime) -> None:
    """Leave no rows behind."""
    async with kit.database.session_scope() as session:
        await session.execute(delete(Job))
        await session.execute(delete(User))


@asynccontextmanager
async def running(kit: Runtime) -> AsyncIterator[None]:
    """A worker while the block lasts: a process where there is Redis, otherwise this one."""
    if kit.redis:
        with worker():
            yield
    else:
        kit.runner.start()
        try:
            yield
        finally:
            await kit.runner.stop(10)


@contextmanager
def worker() -> Iterator[None]:
    """One worker process."""
    with tempfile.TemporaryFile() as log, subprocess.Popen(WORKER, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()


if __name__ == "__main__":
    chosen, second = Sizes(**json.loads(sys.argv[1])), sys.argv[2]
    with tempfile.TemporaryDirectory() as created:
        print(json.dumps({"sizes": asdict(chosen), **uvloop.run(measure(chosen, second, Path(created)))}))
