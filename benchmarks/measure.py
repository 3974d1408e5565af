"""Measures both servers in turn, so that what else the machine does falls on both alike."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import load
from benchmarks.scenarios import Scenario
from benchmarks.servers import Server

CONNECTIONS = 16


@dataclass(frozen=True)
class Slice:
    """One server under load for a moment."""

    cpu_us: float
    per_second: float


@dataclass(frozen=True)
class Row:
    """A scenario: medians of both servers, and the ratios of the rounds from the lowest to the highest."""

    name: str
    service_cpu_us: float
    baseline_cpu_us: float
    service_per_second: float
    baseline_per_second: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """CPU of the service for each second of the baseline's."""
        return statistics.median(self.ratios)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "ratio": self.ratio}


async def measure(
    scenarios: Sequence[Scenario],
    servers: tuple[Server, Server],
    *,
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[Row]:
    """Every scenario `rounds` times on each server, after one round that does not count."""
    slices: dict[tuple[str, str], list[Slice]] = {}
    for number in range(rounds + 1):
        for scenario in scenarios:
            for server in servers if number % 2 else servers[::-1]:
                measured = await _slice(server, scenario, seconds)
                if number:
                    slices.setdefault((scenario.name, server.name), []).append(measured)
        say(f"round {number} of {rounds}" if number else "warmed up")
    return [_row(scenario.name, *(slices[scenario.name, server.name] for server in servers)) for scenario in scenarios]


async def _slice(server: Server, scenario: Scenario, seconds: float) -> Slice:
    before = server.cpu_seconds()
    done = await load.run(server.port, scenario.requests[server.name], seconds=seconds, connections=CONNECTIONS)
    used = server.cpu_seconds() - before
    return Slice(cpu_us=used / done.requests * 1e6, per_second=done.requests / done.seconds)


def _row(name: str, service: list[Slice], baseline: list[Slice]) -> Row:
    return Row(
        name,
        service_cpu_us=statistics.median(item.cpu_us for item in service),
        baseline_cpu_us=statistics.median(item.cpu_us for item in baseline),
        service_per_second=statistics.median(item.per_second for item in service),
        baseline_per_second=statistics.median(item.per_second for item in baseline),
        ratios=tuple(sorted(one.cpu_us / other.cpu_us for one, other in zip(service, baseline, strict=True))),
    )
