"""The resources of one process: engine, Redis, services, job runner. Opened and closed here, nothing at import."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

# The registries, too: without them an event finds no listener, a job no task, a package's mail no template.
from app.core import kit, listeners, tasks  # noqa: F401
from app.core.api.health import HealthCheck, current_checks
from app.core.configs import AppConfig, make_private
from app.core.configs.app import current_settings
from app.core.db.installation import KeyPrefix, current_key_prefix, current_redis, expected_revisions
from app.core.db.session import Database, current_database
from app.core.exceptions import ConfigError
from app.core.identity import current_authenticators, current_permissions
from app.core.migrations.timelines import known_revisions
from app.core.modules import declared_permissions, installed_modules, offered_authenticators, parts
from app.core.process import Slot, lifecycle
from app.core.services.background import Background, current_background
from app.core.services.cache import CacheService, CacheServiceInterface, MemoryStore, RedisStore
from app.core.services.cache.interface import current_cache
from app.core.services.events import EventsService
from app.core.services.events.interface import current_events
from app.core.services.http import HttpClient
from app.core.services.http.interface import current_http
from app.core.services.log.reporting import LogOnly, current_reporter
from app.core.services.mail import CaptureMailService, MailServiceInterface, Sender, SMTPMailService, SMTPServer
from app.core.services.mail.interface import current_mail
from app.core.services.personal_data import PersonalData, current_personal_data
from app.core.services.providers import provided
from app.core.services.queue import Clock, JobRunner, JobWaker, QueueService, QueueServiceInterface, make_broker
from app.core.services.queue.broker import current_broker, current_waker
from app.core.services.queue.interface import current_queue
from app.core.services.queue.isolation import Isolation
from app.core.services.queue.limits import Queues
from app.core.services.queue.registry import tasks as registered
from app.core.services.queue.runner import current_runner

DATABASE_SECONDS = 2.0
"""Seconds a start waits for the prefix of the Redis keys, which is in the database."""


class Runtime:
    """The open resources of this process, a name for each slot; setting one exchanges the resource."""

    settings = current_settings
    database = current_database
    redis = current_redis
    key_prefix = current_key_prefix
    cache = current_cache
    events = current_events
    queue = current_queue
    mail = current_mail
    http = current_http
    runner = current_runner
    waker = current_waker
    broker = current_broker
    background = current_background
    reporter = current_reporter
    revisions = expected_revisions
    checks = current_checks
    authenticators = current_authenticators
    permissions = current_permissions
    personal_data = current_personal_data


def runtime() -> Runtime:
    """The open resources; RuntimeNotOpen before the application has started."""
    current_settings()
    return Runtime()


@asynccontextmanager
async def open_runtime(
    settings: AppConfig, *, run_jobs: bool, run_schedule: bool | None = None
) -> AsyncIterator[Runtime]:
    """Open everything, yield it, and close it in the reverse order.

    `run_jobs` has this process run jobs in the background, and scheduled ones unless `run_schedule` says otherwise.
    """
    opened = Runtime()
    async with AsyncExitStack() as stack:
        # First, so that slots are emptied last: what the stack closes may still look a resource up.
        for slot in vars(Runtime).values():
            if isinstance(slot, Slot):
                stack.callback(slot.saved())
        await _open(opened, settings, stack, run_jobs)
        async with _jobs(run_jobs, run_jobs if run_schedule is None else run_schedule):
            yield opened


async def _open(opened: Runtime, settings: AppConfig, stack: AsyncExitStack, run_jobs: bool) -> None:
    opened.settings = settings
    opened.revisions = known_revisions
    opened.reporter = provided(settings, "ERROR_REPORTER", {"settings": settings}) or LogOnly()
    stack.push_async_callback(opened.reporter.close)
    opened.checks = module_checks(parts("health"))
    opened.authenticators = offered_authenticators()
    opened.permissions = declared_permissions()
    answers = [(module.short_name, module.part("personal_data")) for module in reversed(installed_modules())]
    opened.personal_data = {name: module_personal_data(part) for name, part in answers if part}
    if settings.database_url.get_backend_name() == "sqlite":
        make_private(Path(str(settings.database_url.database)).parent)
    opened.http = HttpClient(settings.HTTP_INTEGRATIONS)
    stack.push_async_callback(opened.http.close)
    queues = Queues(settings.JOBS_CONCURRENCY, settings.JOBS_QUEUES, settings.WORKER_QUEUES)
    slots = sum(map(queues.slots, queues.known(task.cls.queue for task in registered)))
    opened.database = Database.connect(
        settings.database_url,
        # Beside a connection for each job the runner needs its own, to claim and to keep the leases.
        pool_size=max(settings.DB_POOL_SIZE, slots + 2 if run_jobs else 0),
        pool_timeout=settings.DB_POOL_TIMEOUT_SECONDS,
        statement_timeout=settings.DB_STATEMENT_TIMEOUT_SECONDS,
        # A task has its own `timeout`, and may keep a transaction open while it works.
        idle_transaction_timeout=0 if run_jobs else settings.DB_IDLE_TRANSACTION_TIMEOUT_SECONDS,
        prepared_statements=settings.DB_PREPARED_STATEMENTS,
        echo=settings.SQL_ECHO,
    )
    stack.push_async_callback(opened.database.close)
    url = settings.redis_url
    redis = opened.redis = connect_redis(url, settings.RATE_LIMITER_TIMEOUT_SECONDS) if url else None
    key_prefix = opened.key_prefix = KeyPrefix(settings.REDIS_KEY_PREFIX, current_database)
    if redis:
        stack.push_async_callback(redis.aclose)
    if redis and key_prefix.known is None:
        with suppress(RedisError, TimeoutError):  # who needs it asks again
            await asyncio.wait_for(key_prefix.get(), DATABASE_SECONDS)
    broker = opened.broker = make_broker(settings, key_prefix)
    await broker.startup()
    stack.push_async_callback(broker.shutdown)
    background = opened.background = Background()
    opened.runner = JobRunner(
        current_database,
        queues=queues,
        poll=settings.JOBS_POLL_SECONDS,
        lease=settings.JOBS_LEASE_SECONDS,
        isolation=Isolation(settings.database_url),
    )
    waker = opened.waker = JobWaker(opened.runner, broker if redis else None, background)
    sender = Sender(settings.EMAIL_SENDER_NAME, settings.EMAIL_SENDER_ADDRESS, settings.DOMAIN)
    offered = {
        "settings": settings,
        "database": current_database,
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

    queue = service("QUEUE_PROVIDER", lambda: QueueService(current_database, waker, broker, background))
    offered["queue"] = opened.queue = queue
    opened.cache = service("CACHE_PROVIDER", lambda: _cache(settings, key_prefix, stack))
    opened.events = service("EVENTS_PROVIDER", lambda: EventsService(current_database, waker, background))
    opened.mail = service("MAIL_PROVIDER", lambda: _mail(settings, sender, queue))


def exporting(settings: AppConfig) -> AbstractAsyncContextManager[None]:
    """Serve the metrics of this process while the block runs, if they are enabled. Enter it in an open runtime."""
    if not settings.METRICS_ENABLED:
        return nullcontext()
    served: AbstractAsyncContextManager[None] = import_module("app.core.exporter").exporting(settings)  # an extra
    return served


@asynccontextmanager
async def _jobs(run_jobs: bool, run_schedule: bool) -> AsyncIterator[None]:
    clock: asyncio.Task[None] | None = None
    try:
        if run_jobs:
            current_runner().start()
        if run_schedule:
            clock = asyncio.create_task(Clock().run())
        yield
    finally:
        if clock:
            clock.cancel()
            await asyncio.gather(clock, return_exceptions=True)
        grace = lifecycle.grace(current_settings().SHUTDOWN_GRACE_SECONDS)
        grace_ends = asyncio.get_running_loop().time() + grace
        await current_runner().stop(grace)
        # One grace for both; at least a second, as what was dispatched outside a unit may still be on its way.
        await current_background().close(max(grace_ends - asyncio.get_running_loop().time(), 1))


def module_checks(found: Iterable[ModuleType]) -> tuple[HealthCheck, ...]:
    """The `checks` of these files, named after their modules."""
    named = []
    for part in found:
        checks = getattr(part, "checks", None)
        is_list = isinstance(checks, list | tuple) and all(isinstance(check, HealthCheck) for check in checks)
        if not checks or not is_list:
            raise ConfigError(f"{part.__name__} defines no checks: checks = [HealthCheck(name, ask)]")
        names = [check.name for check in checks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"{part.__name__} defines several checks named {', '.join(sorted(twice))}")
        module = part.__name__.split(".")[-2]
        named += [replace(check, name=f"{module}.{check.name}") for check in checks]
    return tuple(named)


def module_personal_data(part: ModuleType) -> PersonalData:
    """The `personal_data` of a module's file."""
    found = getattr(part, "personal_data", None)
    if not isinstance(found, PersonalData):
        raise ConfigError(f"{part.__name__} defines no personal_data: personal_data = MyPersonalData()")
    return found


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
    if settings.redis_url is None:
        return CacheService(MemoryStore())
    timeout = settings.CACHE_TIMEOUT_SECONDS
    redis = connect_redis(settings.redis_url, max(0.2, 2 * timeout))  # its own: a busy cache keeps no limit waiting
    stack.push_async_callback(redis.aclose)
    store = RedisStore(redis, prefix, timeout=timeout)
    stack.push_async_callback(store.close)
    return CacheService(store)


def _mail(settings: AppConfig, sender: Sender, queue: QueueServiceInterface) -> MailServiceInterface:
    if settings.SMTP_HOST is None:
        return CaptureMailService(sender, queue, settings.mail_dir)
    return SMTPMailService(sender, queue, SMTPServer.of(settings))
