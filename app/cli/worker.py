"""`kit worker` and `kit scheduler`: run jobs and schedules in processes of their own."""

import asyncio
import logging
import os
import signal
import tempfile
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import fail, load_registries, load_settings, say
from app.cli.run import listen

if TYPE_CHECKING:
    from app.core.runtime import Runtime
    from app.core.services.queue import JobRunner

_PAUSE_SECONDS = 5.0
_BEAT_SECONDS = 1.0
CheckOption = Annotated[
    bool, typer.Option("--check", help="Start nothing: exit with 0 if one is alive on this host, else with 1.")
]
WithinOption = Annotated[
    float, typer.Option(metavar="SECONDS", help="With --check: oldest heartbeat that counts as alive.")
]


def worker(
    with_schedule: Annotated[
        bool, typer.Option("--with-schedule/--no-schedule", help="Also store scheduled jobs, as `kit scheduler` does.")
    ] = False,
    queues: Annotated[
        str, typer.Option(metavar="NAME,...", help="Only jobs of these queues. [default: WORKER_QUEUES, or all]")
    ] = "",
    check: CheckOption = False,
    within: WithinOption = 30.0,
    alone: Annotated[bool, typer.Option("--alone", hidden=True)] = False,
) -> None:
    """Run jobs until told to stop. Any number may run side by side."""
    if queues:
        os.environ["WORKER_QUEUES"] = queues
    if check:
        _check("worker", within)
    elif alone:
        _help_a_worker()
    else:
        _run(run_jobs=True, run_schedule=with_schedule)


def scheduler(check: CheckOption = False, within: WithinOption = 30.0) -> None:
    """Store scheduled jobs when they are due. Several may run: each job is stored once."""
    if check:
        _check("scheduler", within)
    else:
        _run(run_jobs=False, run_schedule=True)


def _check(name: str, within: float) -> None:
    """End with exit code 1 and a line if no such process has touched its heartbeat in time. Imports no settings."""
    try:
        silent = time.time() - _heartbeat(name).stat().st_mtime
    except OSError:
        fail(f"No {name} has run on this host.")
    if not -1 <= silent <= within:
        fail(f"The last heartbeat of a {name} on this host was {silent:.0f} s ago.")
    say(f"A {name} is alive on this host.")


def _heartbeat(name: str) -> Path:
    """Return the file that workers or schedulers of this checkout touch while their event loops run.

    Not below VAR_DIR, which hosts may share and a read-only file system may hold; TMPDIR moves it.
    """
    checkout = sha256(os.fsencode(Path(__file__).parents[2])).hexdigest()[:8]
    return Path(tempfile.gettempdir(), f"kit-{checkout}-{name}")


async def _beat_until(stopping: asyncio.Event, names: list[str], runner: "JobRunner") -> None:
    """Touch the heartbeat files until told to stop. A blocked event loop touches none."""
    from app.core.services.log import logger

    failed = False
    while runner.alive and not stopping.is_set():
        try:
            for name in names:
                # Other users can write to the folder: follow no link, and do not block on a pipe.
                file = os.open(_heartbeat(name), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
                try:
                    os.utime(file)
                finally:
                    os.close(file)
        except OSError as exc:
            if not failed:
                logger.warning("the heartbeat cannot be written: --check will fail", error=str(exc))
            failed = True
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _BEAT_SECONDS)
    await stopping.wait()


def _run(*, run_jobs: bool, run_schedule: bool) -> None:
    settings = load_settings()
    load_registries()
    import uvloop

    from app.core.runtime import exporting, open_runtime
    from app.core.services.log import configure_logging, logger

    if settings.METRICS_ENABLED and settings.METRICS_PORT:
        listen(settings.METRICS_HOST, settings.METRICS_PORT, "METRICS_PORT").close()

    async def work() -> None:
        stopping = _stop_signals()
        opening = open_runtime(settings, run_jobs=run_jobs, run_schedule=run_schedule)
        async with opening as opened, exporting(settings):
            if settings.METRICS_ENABLED and settings.METRICS_PORT is None:
                logger.warning("METRICS_PORT is not set: nothing can scrape this process")
            names = ["worker"] * run_jobs + ["scheduler"] * run_schedule
            if not run_jobs:
                logger.info("scheduler ready")
                await _beat_until(stopping, names, opened.runner)
                logger.info("scheduler stops")
                return
            listening = asyncio.create_task(_listen(opened, stopping))
            taken = settings.WORKER_QUEUES or "all"
            logger.info("worker ready", queues=taken, concurrency=settings.JOBS_CONCURRENCY, schedule=run_schedule)
            await _beat_until(stopping, names, opened.runner)
            grace = settings.SHUTDOWN_GRACE_SECONDS
            logger.info("worker stops", grace=grace)
            # Side by side: one grace for all.
            await asyncio.gather(opened.runner.stop(grace), opened.background.close(grace), listening)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        configure_logging(settings)
        runner.run(work())


def _help_a_worker() -> None:
    """Run suspects, each in a process of its own; a worker starts this (see app.core.services.queue.isolation)."""
    settings = load_settings()
    load_registries()
    import uvloop
    from pydantic import SecretStr

    from app.core.runtime import open_runtime
    from app.core.services.log import configure_logging
    from app.core.services.queue.isolation import Control, serve_helper
    from app.core.services.queue.runner import OutcomeWriter

    async def work(claim: dict[str, str], control: Control) -> None:
        values = {"DATABASE_URL": SecretStr(claim["url"]), "DB_IDLE_TRANSACTION_TIMEOUT_SECONDS": 0.0}  # as a worker
        own = settings.model_copy(update=values)
        async with open_runtime(own, run_jobs=False) as opened:
            store = opened.runner.store
            await control.run(claim, store, OutcomeWriter(store).write)

    def run(claim: dict[str, str], control: Control) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(claim, control))

    configure_logging(settings)
    serve_helper(run)


async def _listen(opened: "Runtime", stopping: asyncio.Event) -> None:
    """Receive wake-ups, and tasks that are not durable, from Redis."""
    from taskiq.receiver import Receiver

    from app.core.services.log import logger

    settings = opened.settings
    if opened.redis is None:
        logger.info("REDIS_URL is not set: polling the jobs table", every=settings.JOBS_POLL_SECONDS)
        return
    logging.getLogger("taskiq").setLevel(logging.WARNING)  # at INFO a line for every wake-up
    opened.broker.is_worker_process = True
    while not stopping.is_set():
        receiver = Receiver(
            opened.broker,
            run_startup=False,  # the runtime has done it
            max_async_tasks=settings.JOBS_CONCURRENCY,
            wait_tasks_timeout=settings.SHUTDOWN_GRACE_SECONDS,
        )
        try:
            await receiver.listen(stopping)
        except Exception:
            logger.exception("listening to the broker failed: polling the jobs table")
            await asyncio.sleep(_PAUSE_SECONDS)


def _stop_signals() -> asyncio.Event:
    """Return an event set by the first SIGTERM or SIGINT; the second ends the process at once."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop(received: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + received)  # running jobs are claimed again after their lease
        stopping.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop, each)
    return stopping
