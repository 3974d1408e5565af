"""What one process holds open: engine, Redis, services, job runner. Opened once, closed again, nothing at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from app.core.configs import AppConfig
from app.core.db.session import Database
from app.core.exceptions import RuntimeNotOpen
from app.core.services.cache import CacheServiceInterface
from app.core.services.events import EventsServiceInterface
from app.core.services.mail import MailServiceInterface
from app.core.services.queue import JobRunner, QueueServiceInterface


@dataclass
class Runtime:
    """The open resources of this process."""

    settings: AppConfig
    database: Database
    redis: Redis | None
    cache: CacheServiceInterface
    events: EventsServiceInterface
    queue: QueueServiceInterface
    mail: MailServiceInterface
    runner: JobRunner


_current: Runtime | None = None


def runtime() -> Runtime:
    """The open runtime of this process."""
    if _current is None:
        raise RuntimeNotOpen("the application is not started: use its lifespan, or open_runtime() in a script")
    return _current


@asynccontextmanager
async def open_runtime(settings: AppConfig, *, run_jobs: bool) -> AsyncIterator[Runtime]:
    """Open everything, yield it, and close it in the reverse order."""
    raise NotImplementedError
    yield
