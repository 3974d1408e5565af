"""`kit worker` and `kit scheduler`: run jobs and schedules in processes of their own."""

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import load_registries, load_settings

if TYPE_CHECKING:
    from app.core.runtime import Runtime

_PAUSE_SECONDS = 5.0


def worker(
    with_schedule: Annotated[
        bool, typer.Option("--with-schedule/--no-schedule", help="Keep the schedule too, as `kit scheduler` does.")
    ] = False,
) -> None:
    """Run jobs until told to stop. Any number may run side by side."""
    _run(run_jobs=True, run_schedule=with_schedule)


def scheduler() -> None:
    """Store the jobs that are due by the clock. Of several, one stores each."""
    _run(run_jobs=False, run_schedule=True)


def _run(*, run_jobs: bool, run_schedule: bool) -> None:
    settings = load_settings()
    load_registries()
    import uvloop

    from app.core.runtime import open_runtime
    from app.core.services.log import configure_logging, logger

    async def work() -> None:
        stopping = _stop_signals()
        async with open_runtime(settings, run_jobs=run_jobs, run_schedule=run_schedule) as opened:
            if not run_jobs:
                logger.info("scheduler ready")
                await stopping.wait()
                logger.info("scheduler stops")
                return
            listening = asyncio.create_task(_listen(opened, stopping))
            logger.info("worker ready", concurrency=settings.JOBS_CONCURRENCY, schedule=run_schedule)
            await stopping.wait()
            grace = settings.SHUTDOWN_GRACE_SECONDS
            logger.info("worker stops", grace=grace)
            # Side by side: one grace for all.
            await asyncio.gather(opened.runner.stop(grace), opened.background.close(grace), listening)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        configure_logging(settings)
        runner.run(work())


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
            os._exit(128 + received)  # what was running is found again when its lease is up
        stopping.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop, each)
    return stopping
