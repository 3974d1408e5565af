"""What features that are off by default add to a profile request: the service with them against the service without."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.measure import CONNECTIONS, Row, measure
from benchmarks.scenarios import profile
from benchmarks.servers import switched
from tests.processes import free_port


def features(folder: Path) -> dict[str, Mapping[str, str]]:
    """The settings of each feature, by the name of its row."""
    metrics = {"METRICS_ENABLED": "true", "METRICS_PORT": str(free_port())}
    return {
        "metrics": metrics,
        "metrics, several processes": {**metrics, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
    }


async def compare(urls: tuple[str, str], *, rounds: int, seconds: float, say: Callable[[str], None]) -> list[Row]:
    """A row for each feature."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in features(Path(folder)).items():
            say(name)
            with switched(*urls, settings) as pair:
                rows += await measure(await profile(*pair, name), pair, rounds=rounds, seconds=seconds, say=say)
    return rows


def print_table(rows: list[Row]) -> None:
    """For people."""
    print(f"\nCPU per profile request, one process each, {CONNECTIONS} connections\n")
    print(f"{'':30}{'with':>12}{'without':>12}   ratio  (lowest to highest)")
    for row in rows:
        costs = f"{row.service_cpu_us:>9,.0f} µs{row.baseline_cpu_us:>9,.0f} µs"
        print(f"{row.name:30}{costs}   {row.ratio:5.2f}  ({row.ratios[0]:.2f} to {row.ratios[-1]:.2f})")
