"""What one process holds open: engine, Redis, services, job runner. Opened once, closed again, nothing at import."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from taskiq import AsyncBroker

from app.core.configs import AppConfig, make_private
from app.core.db.installation import KeyPrefix
from app.core.db.session import Database
from app.core.exceptions import RuntimeNotOpen
from app.core.services.background import Background
from app.core.services.cache import CacheService, CacheServiceInterface, MemoryStore, RedisStore
from app.core.services.events import EventsService, EventsServiceInterface
from app.core.services.mail import CaptureMailService, MailServiceInterface, Sender, SMTPMailService, SMTPServer
from app.core.services.providers import provided
from app.core.services.queue import (
    Clock,
    JobRunner,
    JobWaker,
    QueueService,
    QueueServiceInterface,
    make_broker,
)

DATABASE_SECONDS = 2.0
"""Seconds a start waits for the prefix of the Redis keys, which is in the database."""


@dataclass
class Runtime:
    """The open resources of this process."""

    settings: AppConfig
    database: Database
    redis: Redis | None
    key_prefix: KeyPrefix
    cache: CacheServiceInterface
    events: EventsServiceInterface
    queue: QueueServiceInterface
    mail: MailServiceInterface
    runner: JobRunner
    waker: JobWaker
    broker: AsyncBroker
    background: Background


_current: Runtime | None = None


def runtime() -> Runtime:
    """The open runtime of this process."""
    if _current is None:
        raise RuntimeNotOpen("the application is not started: use its lifespan, or open_runtime() in a script")
    return _current


def _database() -> Database:
    return runtime().database  # looked up at each use: a test may exchange it


@asynccontextmanager
async def open_runtime(
    settings: AppConfig, *, run_jobs: bool, run_schedule: bool | None = None
) -> AsyncIterator[Runtime]:
    """Open everything, yield it, and close it in the reverse order.

    `run_jobs` has this process run jobs in the background, and scheduled ones unless `run_schedule` says otherwise.
    """
    global _current  # noqa: PLW0603  the one place that holds what is open
    # Registries first: without them an event finds no listener, a job no task, a package's mail no template.
    from app.core import kit, listeners, tasks  # noqa: F401

    async with AsyncExitStack() as stack:
        opened = await _open(settings, stack, run_jobs)
        previous, _current = _current, opened
        try:
            async with _jobs(opened, run_jobs, run_jobs if run_schedule is None else run_schedule):
                yield opened
        finally:
            # What the stack closes may still look the runtime up.
            await stack.aclose()
            _current = previous


async def _open(settings: AppConfig, stack: AsyncExitStack, run_jobs: bool) -> Runtime:
    # Beside a connection for each job the runner needs its own, to claim and to keep the leases.
    pool_size = max(settings.DB_POOL_SIZE, settings.JOBS_CONCURRENCY + 2 if run_jobs else 0)
    if settings.database_url.get_backend_name() == "sqlite":
        make_private(Path(str(settings.database_url.database)).parent)
    database = Database.connect(
        settings.database_url,
        pool_size=pool_size,
        pool_timeout=settings.DB_POOL_TIMEOUT_SECONDS,
        statement_timeout=settings.DB_STATEMENT_TIMEOUT_SECONDS,
        echo=settings.SQL_ECHO,
    )
    stack.push_async_callback(database.close)
    redis = connect_redis(settings.redis_url, settings.RATE_LIMITER_TIMEOUT_SECONDS) if settings.redis_url else None
    if redis:
        stack.push_async_callback(redis.aclose)
    key_prefix = KeyPrefix(settings.REDIS_KEY_PREFIX, lambda: database)
    if redis and key_prefix.known is None:
        with suppress(RedisError, TimeoutError):  # who needs it asks again
            await asyncio.wait_for(key_prefix.get(), DATABASE_SECONDS)
    broker = make_broker(settings, key_prefix)
    await broker.startup()
    stack.push_async_callback(broker.shutdown)
    background = Background()
    runner = JobRunner(
        _database,
        concurrency=settings.JOBS_CONCURRENCY,
        poll=settings.JOBS_POLL_SECONDS,
        lease=settings.JOBS_LEASE_SECONDS,
    )
    waker = JobWaker(runner, broker if redis else None, background)
    sender = Sender(settings.EMAIL_SENDER_NAME, settings.EMAIL_SENDER_ADDRESS, settings.DOMAIN)
    offered = {
        "settings": settings,
        "database": _database,
        "redis": redis,
        "key_prefix": key_prefix,
        "broker": broker,
        "background": background,
        "waker": waker,
        "sender": sender,
    }

    def service(setting: str, built_in: Callable[[], Any]) -> Any:
        found = provided(settings, setting, offered)
        made = built_in() if found is None else found
        stack.push_async_callback(made.close)
        return made

    queue = offered["queue"] = service("QUEUE_PROVIDER", lambda: QueueService(_database, waker, broker, background))
    return Runtime(
        settings=settings,
        database=database,
        redis=redis,
        key_prefix=key_prefix,
        cache=service("CACHE_PROVIDER", lambda: _cache(settings, key_prefix, stack)),
        events=service("EVENTS_PROVIDER", lambda: EventsService(_database, waker, background)),
        queue=queue,
        mail=service("MAIL_PROVIDER", lambda: _mail(settings, sender, queue)),
        runner=runner,
        waker=waker,
        broker=broker,
        background=background,
    )


@asynccontextmanager
async def _jobs(opened: Runtime, run_jobs: bool, run_schedule: bool) -> AsyncIterator[None]:
    clock: asyncio.Task[None] | None = None
    try:
        if run_jobs:
            opened.runner.start()
        if run_schedule:
            clock = asyncio.create_task(Clock().run())
        yield
    finally:
        if clock:
            clock.cancel()
            await asyncio.gather(clock, return_exceptions=True)
        grace = opened.settings.SHUTDOWN_GRACE_SECONDS
        grace_ends = asyncio.get_running_loop().time() + grace
        await opened.runner.stop(grace)
        # One grace for both; at least a second, as what was dispatched outside a unit may still be on its way.
        await opened.background.close(max(grace_ends - asyncio.get_running_loop().time(), 1))


def connect_redis(url: str, timeout: float) -> Redis:
    """For the cache and the limiter: fail within `timeout` seconds, their users have an answer without Redis."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=50,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def _cache(settings: AppConfig, prefix: KeyPrefix, stack: AsyncExitStack) -> CacheServiceInterface:
    store: MemoryStore | RedisStore
    max_seconds, max_bytes = settings.CACHE_MAX_SECONDS, settings.CACHE_MAX_VALUE_BYTES
    if settings.redis_url is None:
        store = MemoryStore(settings.CACHE_MAX_ITEMS, settings.CACHE_MAX_BYTES)
    else:
        timeout = settings.CACHE_TIMEOUT_SECONDS
        redis = connect_redis(settings.redis_url, max(0.2, 2 * timeout))  # its own: a busy cache keeps no limit waiting
        stack.push_async_callback(redis.aclose)
        store = RedisStore(redis, prefix, timeout=timeout, max_seconds=max_seconds, max_bytes=max_bytes)
        stack.push_async_callback(store.close)
    return CacheService(store, max_value_bytes=max_bytes, max_seconds=max_seconds)


def _mail(settings: AppConfig, sender: Sender, queue: QueueServiceInterface) -> MailServiceInterface:
    if settings.SMTP_HOST is None:
        return CaptureMailService(sender, queue, settings.mail_dir)
    server = SMTPServer(
        settings.SMTP_HOST,
        settings.SMTP_PORT,
        settings.SMTP_USER,
        settings.SMTP_PASSWORD,
        tls=settings.smtp_starttls,
        ssl=settings.SMTP_SSL,
    )
    return SMTPMailService(sender, queue, server)
