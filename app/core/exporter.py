"""Serve metrics to Prometheus: at `/metrics`, or on a port of their own. Needs the extra `metrics`."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from hmac import compare_digest
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import prometheus_client
from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder, make_wsgi_app
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from app.core import metrics
from app.core.configs import AppConfig, get_settings
from app.core.db.base import utcnow
from app.core.db.engines import statements_may_take
from app.core.db.jobs import JobStatus
from app.core.db.session import Database, current_database
from app.core.deps import configured
from app.core.exceptions import AuthenticationError, ConfigError
from app.core.identity import public
from app.core.modules import parts
from app.core.services.log import logger
from app.core.services.queue.limits import QueueState, queue_states
from app.core.services.queue.registry import tasks

TICK_SECONDS = 0.5
ASK_SECONDS = 2.0
"""Time for which a scrape waits for the state of the queues."""
VALID_SECONDS = 5.0
"""Time for which that is not asked again."""
CLIENT_SECONDS = 10.0

prometheus_client.disable_created_metrics()  # a second series for each counter
router = APIRouter(include_in_schema=False, dependencies=[public])


@router.get("/metrics")
async def show_metrics(request: Request) -> Response:
    """Return the metrics in the format that the scraper prefers. Asks for `METRICS_TOKEN` where it is set."""
    if not _may_read(request.headers.get("Authorization"), configured(request, get_settings).METRICS_TOKEN):
        raise AuthenticationError
    encode, media_type = choose_encoder(request.headers.get("Accept", ""))
    # In a thread: it waits for the event loop.
    text = await asyncio.to_thread(encode, Scrape(asyncio.get_running_loop()))
    return Response(text, media_type=media_type)


def _may_read(authorization: str | None, token: SecretStr | None) -> bool:
    expected = f"Bearer {token.get_secret_value()}" if token else ""
    return token is None or compare_digest((authorization or "").encode(), expected.encode())


@asynccontextmanager
async def exporting(settings: AppConfig) -> AsyncIterator[None]:
    """Record the metrics of this process while the block runs, and serve them on `METRICS_PORT` if it is set."""
    _check_names()
    server = _Server(settings, Scrape(asyncio.get_running_loop())) if settings.METRICS_PORT else None
    for metric in metrics.declared:
        metric.serve(_family)
    for task in tasks:
        metrics.job_runs.inc(task.name, JobStatus.DEAD, by=0)  # Prometheus sees no increase in what begins with 1
    engine = current_database().engine.sync_engine
    listeners = (("before_cursor_execute", _begin_statement), ("after_cursor_execute", _end_statement))
    for listener in listeners:
        event.listen(engine, *listener)
    watching = asyncio.create_task(_watch())
    try:
        yield
    finally:
        if server:
            await asyncio.to_thread(server.stop)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for listener in listeners:
            event.remove(engine, *listener)
        for metric in metrics.declared:
            metric.serve(None)


def _check_names() -> None:
    for part in parts("metrics"):
        prefix = f"{part.__name__.split('.')[-2]}_"
        for name in (found.name for found in vars(part).values() if isinstance(found, metrics.Metric)):
            if not name.startswith(prefix):
                raise ConfigError(f"{part.__name__}: the name of the metric {name} must begin with {prefix}")


def _family(metric: metrics.Metric) -> Any:
    """Make what the library calls a metric; several processes then write into files."""
    if isinstance(metric, metrics.Gauge):
        return prometheus_client.Gauge(
            metric.name, metric.text, metric.labels, registry=None, multiprocess_mode="livesum"
        )
    if isinstance(metric, metrics.Histogram):
        return prometheus_client.Histogram(
            metric.name, metric.text, metric.labels, registry=None, buckets=metrics.SECONDS
        )
    return prometheus_client.Counter(metric.name, metric.text, metric.labels, registry=None)


def _begin_statement(_connection: Any, _cursor: Any, _statement: str, _values: Any, context: Any, _many: bool) -> None:
    context.kit_begun = time.perf_counter()


def _end_statement(_connection: Any, _cursor: Any, _statement: str, _values: Any, context: Any, _many: bool) -> None:
    if begun := getattr(context, "kit_begun", None):  # None for one that ran when this was switched on
        metrics.statements.observe(time.perf_counter() - begun)


async def _watch() -> None:
    """Note what has no event of its own, twice a second; a tick that comes late shows that the event loop was busy."""
    loop, used = asyncio.get_running_loop(), 0.0
    metrics.processes.set(1)
    while True:
        metrics.process_cpu.inc(by=time.process_time() - used)
        used = time.process_time()
        if isinstance(pool := current_database().engine.pool, QueuePool):
            metrics.connections.set(pool.checkedout(), "used")
            metrics.connections.set(pool.size(), "limit")
        if (own := Path("/proc/self")).exists():
            pages = int((own / "statm").read_text().split()[1])
            metrics.process_memory.set(pages * os.sysconf("SC_PAGE_SIZE"))
            metrics.process_files.set(len(os.listdir(own / "fd")))
        due = loop.time() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        metrics.loop_lag.observe(max(0.0, loop.time() - due))


class Scrape(Collector):
    """All metrics of the service on this host: of this process, or of all that share a folder, and the queues."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        """Collect them; called in a thread, as the queues are asked in the event loop."""
        if folder := os.environ.get(metrics.SHARED_FOLDER):
            yield from MultiProcessCollector(None, folder).collect()
        else:
            for metric in metrics.declared:
                yield from metric.family.collect() if metric.family else ()
        try:
            asked = asyncio.run_coroutine_threadsafe(_queues(), self._loop)
            states = asked.result(ASK_SECONDS)
        except Exception:  # whatever it is, the other numbers are worth a scrape
            states = None
        yield from _queue_metrics(states)


def _queue_metrics(states: Sequence[QueueState] | None) -> Iterable[Metric]:
    readable = GaugeMetricFamily("kit_queues_readable", "1 if the jobs table could be read.")
    readable.add_metric((), 0 if states is None else 1)
    count = GaugeMetricFamily("kit_queue_jobs", "Unfinished jobs: due, running, or later.", labels=("queue", "state"))
    oldest = GaugeMetricFamily("kit_queue_oldest_seconds", "Time for which the oldest is due.", labels=("queue",))
    paused = GaugeMetricFamily("kit_queue_paused", "1 if the queue is paused.", labels=("queue",))
    for state in states or ():
        later = state.depth - state.due - state.running
        for name, number in (("due", state.due), ("running", state.running), ("later", later)):
            count.add_metric((state.queue, name), number)
        oldest.add_metric((state.queue,), max(0.0, (utcnow() - state.oldest).total_seconds()) if state.oldest else 0)
        paused.add_metric((state.queue,), state.paused)
    return readable, count, oldest, paused


_latest: dict[Database, tuple[float, asyncio.Task[Sequence[QueueState]]]] = {}


async def _queues() -> Sequence[QueueState]:
    """Return the state of the queues; scrapes within `VALID_SECONDS` share one question."""
    database, now = current_database(), time.monotonic()
    begun, task = _latest.get(database, (now, None))
    if task is None or (task.done() and now - begun >= VALID_SECONDS):
        _latest.clear()
        task = asyncio.create_task(_ask(database))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, also when nobody waits
        _latest[database] = now, task
    return await asyncio.shield(task)


async def _ask(database: Database) -> Sequence[QueueState]:
    with statements_may_take(ASK_SECONDS / 2):
        async with database.session_scope(read_only=True) as session:
            return await queue_states(db=session, queues={task.cls.queue for task in tasks})


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as the base class calls it
        """Write no access log."""


class _Server(ThreadingMixIn, WSGIServer):
    """Serves metrics in threads: it answers, too, while the event loop is blocked."""

    daemon_threads = True

    def __init__(self, settings: AppConfig, scrape: Scrape) -> None:
        host, port = settings.METRICS_HOST, settings.METRICS_PORT or 0
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Any process of a service answers for all of them.
        self.allow_reuse_port = metrics.SHARED_FOLDER in os.environ
        try:
            super().__init__((host, port), _Handler)
        except OSError as exc:
            raise ConfigError(f"METRICS_PORT: cannot listen on {host} port {port}: {exc.strerror}") from exc
        self.set_app(partial(_guarded, settings.METRICS_TOKEN, make_wsgi_app(scrape)))
        Thread(target=self.serve_forever, daemon=True).start()
        logger.info("metrics are served", host=host, port=port)

    def server_bind(self) -> None:
        """Bind, without the look-up of a host name that the base class makes."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def stop(self) -> None:
        """Answer no more."""
        self.shutdown()
        self.server_close()


def _guarded(token: SecretStr | None, show: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if not _may_read(environ.get("HTTP_AUTHORIZATION"), token):
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Length", "0")])
        return ()
    shown: Iterable[bytes] = show(environ, start_response)
    return shown
