"""Dispatching: a job for each durable listener, written by the transaction that caused the event."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.session import Database, current_session, on_commit, store_with
from app.core.services.background import Background, current_pending
from app.core.services.events.in_process import deliver
from app.core.services.events.interface import BaseEvent, EventDataError, EventsServiceInterface, ListenedEvent
from app.core.services.events.registry import Listener, listeners, path_of
from app.core.services.events.tasks import Listen
from app.core.services.failures import describe
from app.core.services.log import logger
from app.core.services.queue.broker import JobWaker
from app.core.services.queue.registry import tasks
from app.core.services.queue.store import new_job

_MAX_PAUSE_SECONDS = 5.0

_random = random.SystemRandom()


class EventsService(EventsServiceInterface):
    """Listeners by registry, durable ones through the table of jobs."""

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
            start = partial(deliver, found, listened, self._background)
            if session is None:
                start()
            else:
                on_commit(session, start)

    def _add(self, session: AsyncSession, event: ListenedEvent, runs: Sequence[dict[str, Any]]) -> None:
        for data in runs:
            row = new_job(tasks.of(Listen), data, principal=event.data._get_principal())
            store_with(session, row, partial(self._waker, row))

    async def _store(self, event: ListenedEvent, runs: Sequence[dict[str, Any]]) -> None:
        async with self._database().session_scope() as session:
            self._add(session, event, runs)

    async def _store_in_time(self, event: ListenedEvent, runs: Sequence[dict[str, Any]]) -> None:
        """Store what neither a unit of work nor a request carries; tried for as long as the process lives."""
        pause = 0.0
        try:
            while True:
                try:
                    await self._store(event, runs)
                    return
                except (SQLAlchemyError, OSError) as exc:
                    if not pause:  # once, not at every try
                        logger.warning("an event could not be stored: trying again", **_named(event, describe(exc)))
                pause = min(pause * 2 or 0.1, _MAX_PAUSE_SECONDS)
                await asyncio.sleep(pause * _random.uniform(0.75, 1.25))
        except asyncio.CancelledError:
            logger.error("an event is lost: the process ends before it could be stored", **_named(event))
            raise


def _named(event: ListenedEvent, error: str | None = None) -> dict[str, str]:
    """What a log line may say of an event: never its data."""
    names = {"name": event.name, "event_id": str(event.id)}
    return names if error is None else names | {"error": error}


def _runs(found: Sequence[Listener], event: ListenedEvent) -> list[dict[str, Any]]:
    """The data of a job for each listener."""
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
        kind = type(event)
        raise EventDataError(f"{kind.__module__}.{kind.__qualname__} holds what JSON cannot") from exc
