"""The queue: stores work with the transaction that asks for it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from taskiq import AsyncBroker
from taskiq.kicker import AsyncKicker

from app.core.db.integrity import named_violations
from app.core.db.session import Database, current_session, on_commit, store_with
from app.core.services.background import Background
from app.core.services.log.context import conversation_id, request_id
from app.core.services.queue.broker import RUN_ONCE_TASK
from app.core.services.queue.interface import BaseTask, QueueServiceInterface
from app.core.services.queue.registry import RegisteredTask, tasks
from app.core.services.queue.store import new_job
from app.core.services.queue.waker import JobWaker


class QueueService(QueueServiceInterface):
    """Jobs in the database; taskiq for what need not be durable."""

    def __init__(
        self, database: Callable[[], Database], waker: JobWaker, broker: AsyncBroker, background: Background
    ) -> None:
        self._database = database
        self._waker = waker
        self._broker = broker
        self._background = background

    async def push(
        self, task: type[BaseTask], data: Mapping[str, Any] | None = None, *, durable: bool = True
    ) -> int | None:
        registered = tasks.of(task)
        if not durable:
            self._hand_over(registered, registered.dump(data or {}))
            return None
        session = current_session()
        if session is not None:
            return await self._store(session, registered, data or {})
        async with self._database().session_scope() as own:
            return await self._store(own, registered, data or {})

    async def _store(self, session: AsyncSession, task: RegisteredTask, data: Mapping[str, Any]) -> int | None:
        job = new_job(task, data)
        store_with(session, job, lambda: self._waker(job))
        if job in session:  # not so in a read-only unit, which stores it when it ends
            with named_violations():  # the unit's other rows are written too
                await session.flush()
        return job.id

    def _hand_over(self, task: RegisteredTask, payload: dict[str, Any]) -> None:
        message = {
            "task": task.name,
            "payload": payload,
            "request_id": request_id(),
            "conversation_id": conversation_id(),
        }
        send = partial(self._background.spawn, failure="a task that is not durable was lost")
        session = current_session()
        if session is None:
            send(self._kick(message))
        else:
            on_commit(session, lambda: send(self._kick(message)))

    async def _kick(self, message: dict[str, Any]) -> None:
        await AsyncKicker(RUN_ONCE_TASK, self._broker, labels={}).kiq(**message)
