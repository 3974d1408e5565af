"""The taskiq broker and the waker: wake-ups with row ids after a commit, and work that may be lost."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from taskiq import AsyncBroker, BrokerMessage, InMemoryBroker
from taskiq.exceptions import SendTaskError, TaskiqError
from taskiq.kicker import AsyncKicker
from taskiq_redis import ListQueueBroker

from app.core.configs import AppConfig
from app.core.db.installation import KeyPrefix
from app.core.db.jobs import Job
from app.core.metrics import job_runs
from app.core.process import Slot
from app.core.services.background import Background
from app.core.services.failures import Outage
from app.core.services.log import logger
from app.core.services.log.context import correlation
from app.core.services.queue.execution import run_task
from app.core.services.queue.registry import tasks
from app.core.services.queue.runner import JobRunner, current_runner

WAKE_TASK = "jobs.wake"
RUN_ONCE_TASK = "tasks.run_once"
MAX_IDS = 100
"""Per message. A worker that is woken looks for everything that is due."""

_LISTEN_SECONDS = 5
_PUBLISH_SECONDS = 2.0
_WAKE_SECONDS = 2.0


class RowIdBroker(ListQueueBroker):
    """taskiq's list broker, made to survive a Redis outage: the original ends its worker then.

    It does not acknowledge. Nothing is lost by that: the rows are in the database.
    """

    def __init__(self, url: str, prefix: KeyPrefix) -> None:
        self._prefix = prefix
        self._outage = Outage(
            "Redis unavailable: polling the jobs table", "Redis is available again", first=0.5, longest=10.0
        )
        super().__init__(
            url,
            max_connection_pool_size=2,
            socket_connect_timeout=5,
            socket_timeout=_LISTEN_SECONDS + 5,  # redis-py's default of 5 s would cut every quiet wait
            retry=Retry(NoBackoff(), 0),
        )
        # Of its own: who publishes cannot wait as long as who listens.
        self._publishing = BlockingConnectionPool.from_url(
            url,
            max_connections=10,
            timeout=10,  # for a connection: what is pushed in a burst goes out in turn
            socket_connect_timeout=_PUBLISH_SECONDS,
            socket_timeout=_PUBLISH_SECONDS,
            retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),  # a connection of before a restart is replaced
        )

    async def kick(self, message: BrokerMessage) -> None:
        """Publish, or fail within seconds."""
        async with Redis(connection_pool=self._publishing) as redis:
            await redis.lpush(await self._list(), message.message)

    async def _list(self) -> str:
        return f"{await self._prefix.get()}jobs"

    async def shutdown(self) -> None:
        """Close the connections."""
        await super().shutdown()
        await self._publishing.disconnect()

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Yield messages; a Redis outage is logged once and waited out."""
        while True:
            try:
                async with Redis(connection_pool=self.connection_pool) as redis:
                    message: Any = await redis.brpop([await self._list()], timeout=_LISTEN_SECONDS)
            except (RedisError, OSError) as exc:
                await asyncio.sleep(self._outage.failed(exc))
                continue
            self._outage.over()
            if message is not None:
                yield message[1]


def make_broker(settings: AppConfig, prefix: KeyPrefix) -> AsyncBroker:
    """Make the broker the settings ask for; nothing is connected yet."""
    broker: AsyncBroker
    if settings.redis_url is None:
        broker = InMemoryBroker(await_inplace=True)  # so that closing waits for what was handed over
    else:
        broker = RowIdBroker(settings.redis_url, prefix)
    broker.register_task(wake, task_name=WAKE_TASK)
    broker.register_task(run_once, task_name=RUN_ONCE_TASK)
    return broker


async def wake(ids: list[int]) -> None:
    """Wake the runner of this process: these rows are due, and it looks for all that are."""
    logger.debug("woken for jobs", ids=ids)
    current_runner().wake()


async def run_once(
    task: str, payload: dict[str, Any], request_id: str | None = None, conversation_id: str | None = None
) -> None:
    """Run a task that was pushed with `durable=False`: tried once, a failure is logged."""
    with correlation(request_id, conversation_id):
        try:
            await run_task(*tasks.read(task, payload))
            job_runs.inc(tasks.label(task), "completed")
        except (Exception, KeyboardInterrupt, SystemExit):  # the last two would end the worker
            job_runs.inc(tasks.label(task), "lost")
            logger.exception("a task that is not durable failed", task=task)


async def wake_workers(broker: AsyncBroker, ids: list[int]) -> bool:
    """Tell workers that these jobs are due; False where they cannot be told, which costs time and no job."""
    try:
        async with asyncio.timeout(_WAKE_SECONDS):
            await _publish(broker, ids)
    except (TaskiqError, OSError):  # TimeoutError is an OSError
        return False
    return True


class JobWaker:
    """Wakes the runner of this process, or a worker through the broker if jobs run elsewhere.

    Called inside a commit, so it only sets a signal or starts a task. A lost wake-up costs time, no job.
    """

    def __init__(self, runner: JobRunner, broker: AsyncBroker | None, background: Background) -> None:
        self._runner = runner
        self._broker = broker
        self._background = background
        self._ids: list[int] = []
        self._publishing = False
        self._outage = Outage("no worker could be woken: they poll the jobs table", "workers can be woken again")

    @property
    def runs_here(self) -> bool:
        """True if this process runs the jobs."""
        return self._runner.running

    def __call__(self, job: Job) -> None:
        """Wake whoever runs jobs: `job` has been committed."""
        if self.runs_here:
            self._runner.wake()
        elif self._broker is not None:
            self._ids.append(job.id)
            if not self._publishing:
                self._publishing = True
                self._background.spawn(self._publish_all(self._broker), "no worker could be woken")

    async def _publish_all(self, broker: AsyncBroker) -> None:
        """Publish one message at a time: what is committed meanwhile shares the next one."""
        try:
            while self._ids:
                ids, self._ids = self._ids[:MAX_IDS], []
                try:
                    await _publish(broker, ids)
                except SendTaskError as exc:
                    self._outage.failed(exc.__cause__ or exc)
                else:
                    self._outage.over()
        finally:
            self._publishing = False


async def _publish(broker: AsyncBroker, ids: list[int]) -> None:
    kicker: AsyncKicker[..., None] = AsyncKicker(WAKE_TASK, broker, labels={})
    await kicker.kiq(ids)


current_broker = Slot[AsyncBroker]()
"""The broker of this process."""
current_waker = Slot[JobWaker]()
"""The waker of this process."""
