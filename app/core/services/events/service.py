"""Dispatching: a job for each durable listener, written by the transaction that caused the event."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from fastapi_events.handlers.local import LocalHandler
from fastapi_events.typing import Event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import LISTEN_TASK
from app.core.db.session import Database, current_session, on_commit, store_with
from app.core.services.background import Background, current_pending
from app.core.services.events.interface import (
    BaseEvent,
    EventDataError,
    EventsServiceInterface,
    ListenedEvent,
    Listener,
    listeners,
)
from app.core.services.failures import Outage
from app.core.services.log import logger
from app.core.services.queue.broker import JobWaker
from app.core.services.queue.injection import path_of
from app.core.services.queue.interface import BaseTask, current_job
from app.core.services.queue.registry import queued, tasks
from app.core.services.queue.store import new_job


@queued
class Listen(BaseTask):
    """Hands one event to one listener; what it needs may be away for most of a day."""

    __task_name__ = LISTEN_TASK
    max_attempts = 30

    async def run(
        self,
        *,
        listener: str,
        event: str,
        event_id: UUID,
        occurred_at: datetime,
        data: dict[str, Any],
        kind: str | None = None,
    ) -> None:
        """Deliver; what the listener raises is this job's failure."""
        found = listeners.get(listener)
        read = found.kind(kind).model_validate(data, by_alias=False, by_name=True)
        job = current_job()
        await found.hear(ListenedEvent(event, read, event_id, job.attempt if job else 1, occurred_at))


class EventsService(EventsServiceInterface):
    """Dispatches to registered listeners: to durable ones by jobs, to the others in this process."""

    def __init__(self, database: Callable[[], Database], waker: JobWaker, background: Background) -> None:
        self._database = database
        self._waker = waker
        self._background = background

    def dispatch(self, event: BaseEvent) -> None:
        kind = type(event)
        if not isinstance(event, BaseEvent):
            raise TypeError(f"dispatch takes an event, not {kind.__name__}")
        listened = ListenedEvent(kind.__event_name__, event)
        heard_by = listeners.of(kind)
        runs = _runs([found for found in heard_by if found.durable], listened)
        session = current_session()
        if session is not None:
            self._add(session, listened, runs)
        elif runs and (pending := current_pending()):
            pending.add(partial(self._store, listened, runs))
        elif runs:
            self._background.spawn(self._store_in_time(listened, runs), f"event {listened.name} {listened.id} is lost")
        for found in heard_by:
            if found.durable:
                continue
            start = partial(self._deliver, found, listened)
            if session is None:
                start()
            else:
                on_commit(session, start)

    def _add(self, session: AsyncSession, event: ListenedEvent, runs: Sequence[dict[str, Any]]) -> None:
        for data in runs:
            row = new_job(tasks.of(Listen), data, principal=event.data._get_principal())
            row.queue = listeners.get(data["listener"]).queue
            store_with(session, row, partial(self._waker, row))

    async def _store(self, event: ListenedEvent, runs: Sequence[dict[str, Any]]) -> None:
        async with self._database().session_scope() as session:
            self._add(session, event, runs)

    async def _store_in_time(self, event: ListenedEvent, runs: Sequence[dict[str, Any]]) -> None:
        """Store what neither a unit of work nor a request carries; tried for as long as the process lives."""
        named = {"name": event.name, "event_id": str(event.id)}  # never its data
        outage = Outage("an event could not be stored: trying again", "an event is stored", first=0.1, longest=5.0)
        try:
            while True:
                try:
                    await self._store(event, runs)
                    outage.over(**named)
                    return
                except (SQLAlchemyError, OSError) as exc:
                    await asyncio.sleep(outage.failed(exc, **named))
        except asyncio.CancelledError:
            logger.error("an event is lost: the process ends before it could be stored", **named)
            raise

    def _deliver(self, listener: Listener, event: ListenedEvent) -> None:
        """Start a delivery that is not durable, by a fastapi-events handler.

        One for each listener: within one handler the first that raises stops the rest.
        """

        async def receive(carried: Event) -> None:
            await listener.hear(carried[1]["event"])

        handler = LocalHandler()  # type: ignore[no-untyped-call]  # fastapi-events has no types
        handler.register(receive)  # type: ignore[no-untyped-call]
        failure = f"listener {listener.name}, not durable, failed"
        self._background.spawn(handler.handle((event.name, {"event": event})), failure)


def _runs(found: Sequence[Listener], event: ListenedEvent) -> list[dict[str, Any]]:
    """Make the data of a job for each listener."""
    if not found:
        return []
    shared = {"event": event.name, "event_id": event.id, "occurred_at": event.occurred_at, "data": _dump(event.data)}
    kind = path_of(type(event.data))
    # Rows of a listener's own class name no class: a process of the version before reads them too.
    return [
        {"listener": listener.name, **shared, **({"kind": kind} if type(event.data) is not listener.event else {})}
        for listener in found
    ]


def _dump(event: BaseEvent) -> dict[str, Any]:
    try:
        data = event.model_dump(mode="json", by_alias=False, round_trip=True, warnings="error")
        json.dumps(data, allow_nan=False)  # what the column would refuse is refused here, not at the commit
        return data
    except ValueError as exc:
        raise EventDataError(f"{path_of(type(event))} holds what JSON cannot") from exc
