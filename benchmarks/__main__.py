"""`python -m benchmarks`: the service against a bare application, on PostgreSQL; `jobs`: jobs; `switches`: metrics."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import jobs, switches
from benchmarks.jobs_probe import Sizes
from benchmarks.measure import CONNECTIONS, Row, measure
from benchmarks.scenarios import scenarios
from benchmarks.servers import ROOT, Server, servers


def main() -> None:
    """Measure, and print a table or, with `--json`, one JSON document."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("requests", "jobs", "switches"), default="requests")
    parser.add_argument("--on", action="append", choices=jobs.DATABASES, help="jobs: this database only")
    parser.add_argument("--quick", action="store_true", help="jobs: tiny numbers, to see that everything works")
    parser.add_argument("--rounds", type=int, default=7, help="how often each row is measured (default: 7)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for how long each time (default: 1.0)")
    parser.add_argument(
        "--keys", type=int, default=1_000_000, help="distinct keys of the memory rows; 0 leaves them out"
    )
    parser.add_argument(
        "--starts", type=int, default=5, help="how often the start with many modules is measured; 0 leaves it out"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on the standard output")
    chosen = parser.parse_args()
    if chosen.what == "jobs":
        _jobs(
            chosen.on or jobs.DATABASES,
            jobs.QUICK if chosen.quick else Sizes(rounds=chosen.rounds),
            as_json=chosen.json,
        )
        return
    try:
        urls = os.environ["TEST_DATABASE_URL"], os.environ["TEST_REDIS_URL"]
    except KeyError as missing:
        parser.exit(2, f"{missing.args[0]} is not set: PostgreSQL and Redis are needed, as for `make test`.\n")

    if chosen.what == "switches":
        found = asyncio.run(switches.compare(urls, rounds=chosen.rounds, seconds=chosen.seconds, say=say))
        if chosen.json:
            print(json.dumps([row.as_dict() for row in found]))
        else:
            switches.print_table(found)
        return
    memory = _apart("memory", chosen.keys, "distinct keys") if chosen.keys else None
    modules = _apart("modules", chosen.starts, "starts with few and with many modules") if chosen.starts else None
    with servers(*urls) as pair:
        rows = asyncio.run(_measured(pair, chosen.rounds, chosen.seconds))
    if chosen.json:
        print(json.dumps({"rows": [row.as_dict() for row in rows], "memory": memory, "modules": modules}))
    else:
        _print_table(rows, memory)
        _print_starts(modules)


def _jobs(on: Sequence[str], sizes: Sizes, *, as_json: bool) -> None:
    found = jobs.measure(on, sizes, say)
    if as_json:
        print(json.dumps(found))
    else:
        jobs.print_table(found)


async def _measured(pair: tuple[Server, Server], rounds: int, seconds: float) -> list[Row]:
    return await measure(await scenarios(*pair), pair, rounds=rounds, seconds=seconds, say=say)


def say(text: str) -> None:
    """Progress, beside the result."""
    print(f"  {text}", file=sys.stderr, flush=True)


def _apart(name: str, count: int, unit: str) -> dict[str, Any]:
    """What `benchmarks.<name>` prints, in a process of its own: memory once taken is not given back."""
    say(f"{name}: {count:,} {unit}")
    command = (sys.executable, "-m", f"benchmarks.{name}", str(count))
    found: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    return found


def _print_table(rows: list[Row], memory: dict[str, Any] | None) -> None:
    print(f"\nCPU per request, one process each, {CONNECTIONS} connections; requests a second in brackets\n")
    print(f"{'':24}{'service':>20}{'baseline':>20}   ratio  (lowest to highest)")
    for row in rows:
        service = f"{row.service_cpu_us:,.0f} µs ({row.service_per_second:,.0f})"
        baseline = f"{row.baseline_cpu_us:,.0f} µs ({row.baseline_per_second:,.0f})"
        spread = f"({row.ratios[0]:.2f} to {row.ratios[-1]:.2f})"
        print(f"{row.name:24}{service:>20}{baseline:>20}   {row.ratio:5.2f}  {spread}")
    if memory:
        print(f"\nMemory under {memory['keys']:,} distinct keys\n")
        for name in ("limiter", "cache"):
            item = memory[name]
            print(
                f"{name:24}{item['mib_after_tenth']:,.1f} MiB after a tenth, {item['mib_after_all']:,.1f} MiB"
                f" after all, {item['kept']:,} keys kept, {item['us_per_key']:.1f} µs a key"
            )


def _print_starts(modules: dict[str, Any] | None) -> None:
    if modules:
        print(f"\nCPU of a start with so many modules beside the kit's own; ratio {modules['ratio']:.2f}\n")
        for number, rest, own in zip(*(modules[key] for key in ("modules", "start_ms", "own_code_ms")), strict=True):
            print(f"{f'{number} modules':24}{rest:,} ms, and {own:,} ms for their own files")


if __name__ == "__main__":
    main()
