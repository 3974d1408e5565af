"""The taskiq broker: carries wake-ups with row ids, and the work that may be lost."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from taskiq import AsyncBroker, BrokerMessage, InMemoryBroker
from taskiq_redis import ListQueueBroker

from app.core.configs import AppConfig
from app.core.db.installation import KeyPrefix
from app.core.process import Slot
from app.core.services.log import logger
from app.core.services.log.context import correlation
from app.core.services.queue.execution import run_task
from app.core.services.queue.registry import tasks
from app.core.services.queue.runner import current_runner

WAKE_TASK = "jobs.wake"
RUN_ONCE_TASK = "tasks.run_once"

_LISTEN_SECONDS = 5
_PUBLISH_SECONDS = 2.0
_MAX_PAUSE_SECONDS = 10.0


class RowIdBroker(ListQueueBroker):
    """taskiq's list broker, outliving a Redis that goes away: the original ends its worker then.

    It does not acknowledge. Nothing is lost by that: the rows are in the database.
    """

    def __init__(self, url: str, prefix: KeyPrefix) -> None:
        self._prefix = prefix
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
        """Messages as they come; Redis being away is logged once and waited out."""
        pause = 0.0
        while True:
            try:
                async with Redis(connection_pool=self.connection_pool) as redis:
                    message: Any = await redis.brpop([await self._list()], timeout=_LISTEN_SECONDS)
            except (RedisError, OSError) as exc:
                if not pause:
                    logger.error("Redis cannot be reached: jobs are found by looking", error=type(exc).__name__)
                pause = min(pause * 2 or 0.5, _MAX_PAUSE_SECONDS)
                await asyncio.sleep(pause)
                continue
            pause = 0.0
            if message is not None:
                yield message[1]


def make_broker(settings: AppConfig, prefix: KeyPrefix) -> AsyncBroker:
    """The broker the settings ask for; nothing is connected yet."""
    broker: AsyncBroker
    if settings.redis_url is None:
        broker = InMemoryBroker(await_inplace=True)  # so that closing waits for what was handed over
    else:
        broker = RowIdBroker(settings.redis_url, prefix)
    broker.register_task(wake, task_name=WAKE_TASK)
    broker.register_task(run_once, task_name=RUN_ONCE_TASK)
    return broker


async def wake(ids: list[int]) -> None:
    """These rows are due; the runner of this process looks for all that are."""
    logger.debug("woken for jobs", ids=ids)
    current_runner().wake()


async def run_once(
    task: str, payload: dict[str, Any], request_id: str | None = None, conversation_id: str | None = None
) -> None:
    """Run a task that was pushed with `durable=False`: tried once, a failure is logged."""
    with correlation(request_id, conversation_id):
        try:
            await run_task(*tasks.read(task, payload))
        except (Exception, KeyboardInterrupt, SystemExit):  # the last two would end the worker
            logger.exception("a task that is not durable failed", task=task)


current_broker = Slot[AsyncBroker]()
"""The broker of this process."""
