"""Entry point for taskiq's manager: `taskiq worker app.worker:broker`, `taskiq scheduler app.worker:scheduler`."""

import multiprocessing
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import NoReturn

from taskiq import TaskiqEvents, TaskiqScheduler, TaskiqState

from app.core.configs import check_settings, get_settings
from app.core.db.installation import KeyPrefix
from app.core.db.session import current_database
from app.core.exceptions import ConfigError
from app.core.modules import parts
from app.core.services.log import configure_logging
from app.core.services.providers import check_providers
from app.core.services.queue import make_broker


def _refuse(reason: str) -> NoReturn:
    """End with one line; taskiq would start a worker again and again."""
    process = multiprocessing.current_process()
    if process.name in ("MainProcess", "worker-0"):
        print(reason, file=sys.stderr)
    if multiprocessing.parent_process() is not None:
        os.kill(os.getppid(), signal.SIGTERM)
    sys.exit(1)


settings = get_settings()
if settings.redis_url is None:
    _refuse("REDIS_URL is not set: the app runs the jobs and the schedule itself, or `kit worker` does.")
try:
    list(parts("config"))
    check_settings()
    check_providers(settings)
except ConfigError as exc:
    _refuse(str(exc))
configure_logging(settings)

broker = make_broker(settings, KeyPrefix(settings.REDIS_KEY_PREFIX, current_database))
scheduler = TaskiqScheduler(broker, [])  # the runtime's clock does the work
_opened = AsyncExitStack()


@broker.on_event(TaskiqEvents.WORKER_STARTUP, TaskiqEvents.CLIENT_STARTUP)
async def open_process(_: TaskiqState) -> None:
    """Open what tasks need; a worker then runs jobs, the scheduler stores those that are due by the clock."""
    from app.core.runtime import open_runtime

    works = broker.is_worker_process
    await _opened.enter_async_context(open_runtime(settings, run_jobs=works, run_schedule=not works))


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN, TaskiqEvents.CLIENT_SHUTDOWN)
async def close(_: TaskiqState) -> None:
    """Wait for running jobs, then close everything."""
    await _opened.aclose()
