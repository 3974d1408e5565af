"""Counters, gauges and histograms for Prometheus. They do nothing until a process serves them (`METRICS_ENABLED`).

Nothing here imports the library: `app.core.exporter` does, which needs the extra `metrics`.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.core.configs import AppConfig

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of the library: the folder through which the processes of one service add up their metrics."""

MAX_SERIES = 1000
OTHER = "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})


class Metric:
    """A metric with `labels`, whose values are given at each use, in this order.

    Values come from closed sets (templates of routes, names of tasks), never from input: each combination is a series
    that is kept for good. What comes after `max_series` of them counts as `other`.
    """

    def __init__(self, name: str, text: str, *labels: str, max_series: int = MAX_SERIES) -> None:
        self.name, self.text, self.labels, self.max_series = name, text, labels, max_series
        self.family: Any = None
        self._series: dict[tuple[str, ...], Any] = {}
        if any(metric.name == name for metric in declared):
            raise ValueError(f"two metrics are called {name}")
        declared.append(self)

    def serve(self, make: Callable[["Metric"], Any] | None) -> None:
        """Record from now on in what `make` returns; None ends that."""
        self._series = {}
        self.family = make(self) if make else None

    def _of(self, values: tuple[str, ...]) -> Any:
        """Return the series of these values."""
        found = self._series.get(values)
        if found is None:
            if len(self._series) >= self.max_series:
                values = (OTHER,) * len(values)
            found = self._series[values] = self.family.labels(*values) if values else self.family
        return found


declared: list[Metric] = []
"""Every metric of this process."""


class Counter(Metric):
    """A number that only grows: of requests, of orders. Prometheus shows it as `<name>_total`."""

    def inc(self, *labels: str, by: float = 1) -> None:
        """Count one more, or `by`."""
        if self.family is not None:
            self._of(labels).inc(by)


class Gauge(Metric):
    """A number of this process that goes up and down; those of several processes are added."""

    def set(self, value: float, *labels: str) -> None:
        """Replace the number."""
        if self.family is not None:
            self._of(labels).set(value)


class Histogram(Metric):
    """How many of what was measured, in seconds, stayed below each of `SECONDS`."""

    def observe(self, seconds: float, *labels: str) -> None:
        """Add one measurement."""
        if self.family is not None:
            self._of(labels).observe(seconds)

    @contextmanager
    def time(self, *labels: str) -> Iterator[None]:
        """Measure the block, however it ends."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - begun, *labels)


# By 500 routes, each with a few methods and classes of status.
requests = Counter("kit_http_requests", "Requests answered.", "method", "route", "status", max_series=10_000)
durations = Histogram("kit_http_request_duration_seconds", "Time to the last byte.", "method", "route", max_series=5000)
in_flight = Gauge("kit_http_in_flight", "Requests and open websockets.", "type")
refusals = Counter("kit_limit_refusals", "Calls that a limit or a throttle refused.", "limit")
statements = Histogram("kit_db_statement_duration_seconds", "Statements that the database answered.")
connections = Gauge("kit_db_pool_connections", "Connections of the pool.", "state")
pool_waits = Histogram("kit_db_pool_wait_seconds", "Waits for a connection while all were in use.")
job_runs = Counter("kit_job_runs", "Runs of jobs that ended.", "task", "outcome")
job_durations = Histogram("kit_job_run_duration_seconds", "Duration of these runs.", "task")
cache_reads = Counter("kit_cache_reads", "Reads of the cache.", "result")
mails = Counter("kit_mails", "Mails handed to the server.", "outcome")
loop_lag = Histogram("kit_event_loop_lag_seconds", "Delay of a timer: how long something blocked the event loop.")
processes = Gauge("kit_processes", "Live processes behind this scrape.")
process_cpu = Counter("process_cpu_seconds", "Processor time used.")
process_memory = Gauge("process_resident_memory_bytes", "Resident memory.")
process_files = Gauge("process_open_fds", "Open file descriptors.")


def count_request(method: str, route: str | None, status: int, milliseconds: float) -> None:
    """Count an answered request; whatever a client invents, its method and its path, is one series."""
    method, route = method if method in _METHODS else OTHER, route or "unmatched"
    requests.inc(method, route, f"{status // 100}xx")
    durations.observe(milliseconds / 1000, method, route)


@contextmanager
def shared_between_processes(settings: AppConfig) -> Iterator[None]:
    """Give the processes that are started in the block a fresh folder in which their metrics add up.

    Not below VAR_DIR, which hosts may share: the files are named by process ids.
    """
    if not settings.METRICS_ENABLED:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="kit-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        yield


def forget_process(pid: int | None) -> None:
    """Drop the gauges of a process that has ended; what it counted remains."""
    if folder := os.environ.get(SHARED_FOLDER):
        for path in Path(folder).glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)
