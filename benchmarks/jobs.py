"""Jobs on SQLite in one process, and on PostgreSQL and Redis with a worker process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from benchmarks.jobs_probe import Sizes
from benchmarks.servers import ROOT
from tests.backends import Backend, Embedded, Served

DATABASES = ("sqlite", "postgresql")
QUICK = Sizes(rounds=1, transactions=20, stamps=20, burst=200, completed_rows=2_000, claims=20, memory_jobs=500)


def measure(on: Sequence[str], sizes: Sizes, say: Callable[[str], None]) -> dict[str, Any]:
    """Every row for each of the databases; PostgreSQL where it and Redis are given."""
    found = {}
    if "sqlite" in on:
        found["sqlite"] = _measured(Embedded(), sizes, say)
    if "postgresql" in on:
        urls = os.environ.get("TEST_DATABASE_URL"), os.environ.get("TEST_REDIS_URL")
        if urls[0] and urls[1]:
            found["postgresql"] = _measured(Served(urls[0], urls[1]), sizes, say)
        else:
            say("PostgreSQL left out: TEST_DATABASE_URL and TEST_REDIS_URL are not both set")
    return found


def print_table(found: dict[str, Any]) -> None:
    """For people."""
    for name, rows in found.items():
        print(f"\nJobs on {name}\n")
        for label, text in _lines(rows):
            print(f"{label:24}{text}")


def _lines(rows: dict[str, Any]) -> Iterator[tuple[str, str]]:
    made = rows["dispatch"]
    yield (
        "transaction",
        f"{made['without_us']:,.0f} µs, with a dispatch {made['with_us']:,.0f}, ratio {made['ratio']:.2f}",
    )
    wait = rows["latency"]
    yield "commit to run", f"p50 {wait['p50_ms']:.1f} ms, p99 {wait['p99_ms']:.1f} ms"
    rate = rows["throughput"]
    yield (
        "one worker",
        f"{rate['jobs_per_second']:,.0f} jobs a second, durable=False {rate['light_per_second']:,.0f},"
        f" ratio {rate['ratio']:.2f} ({rate['lowest']:.2f} to {rate['highest']:.2f})",
    )
    for name in ("claim", "outcome"):
        took = rows[name]
        yield (
            f"{name} of ten",
            f"{took['without_us']:,.0f} µs, with {took['completed_rows']:,} completed rows {took['with_us']:,.0f},"
            f" ratio {took['ratio']:.2f}",
        )
    held = rows["memory"]
    for process in held.keys() & {"app", "worker"}:
        seen = held[process]
        yield (
            f"memory of the {process}",
            f"{seen['first_mib']:.1f} MiB in the first fifth of {held['jobs']:,} jobs,"
            f" {seen['last_mib']:.1f} in the last",
        )


def _measured(backend: Backend, sizes: Sizes, say: Callable[[str], None]) -> dict[str, Any]:
    say(backend.name)
    with closing(backend):
        environment = {**os.environ, **backend.environment(), "ENV_FILE": os.devnull, "LOG_LEVEL": "INFO"}
        _run(environment, "-c", "from app.cli import main; main()", "migrate")
        second = backend.copy()
        try:
            url = second.render_as_string(hide_password=False)
            arguments = ("-m", "benchmarks.jobs_probe", json.dumps(asdict(sizes)), url)
            found: dict[str, Any] = json.loads(_run(environment, *arguments).splitlines()[-1])
        finally:
            backend.drop(second)
    return found


def _run(environment: dict[str, str], *arguments: str) -> bytes:
    command = (sys.executable, *arguments)
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True).stdout
