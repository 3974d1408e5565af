"""Dispatching: a job for each durable listener, written by the transaction that caused the event."""

from collections.abc import Callable, Sequence
from functools import partial
from uuid import uuid4

from app.core.db.base import utcnow
from app.core.db.jobs import Job
from app.core.db.session import Database, current_session, on_commit, store_with
from app.core.services.background import Background
from app.core.services.events.in_process import deliver
from app.core.services.events.interface import BaseEvent, EventsServiceInterface, ListenedEvent
from app.core.services.events.registry import Listener, listeners
from app.core.services.events.tasks import Listen
from app.core.services.queue.registry import tasks
from app.core.services.queue.store import new_job
from app.core.services.queue.waker import JobWaker


class EventsService(EventsServiceInterface):
    """Listeners by registry, durable ones through the table of jobs."""

    def __init__(self, database: Callable[[], Database], waker: JobWaker, background: Background) -> None:
        self._database = database
        self._waker = waker
        self._background = background

    def dispatch(self, event: BaseEvent) -> None:
        kind = type(event)
        listened = ListenedEvent(name=kind.__event_name__, data=event, id=uuid4(), attempt=1, occurred_at=utcnow())
        rows = [self._row(found, listened) for found in listeners.of(kind, durable=True)]
        session = current_session()
        if session is None:
            if rows:
                self._background.spawn(self._store(rows), f"event {listened.name} could not be stored and is lost")
        else:
            for row in rows:
                store_with(session, row, partial(self._waker, row))
        for found in listeners.of(kind, durable=False):
            start = partial(deliver, found, listened, self._background)
            if session is None:
                start()
            else:
                on_commit(session, start)

    async def _store(self, rows: Sequence[Job]) -> None:
        async with self._database().session_scope() as session:
            for row in rows:
                store_with(session, row, partial(self._waker, row))

    @staticmethod
    def _row(found: Listener, event: ListenedEvent) -> Job:
        data = {
            "listener": found.name,
            "event": event.name,
            "event_id": event.id,
            "occurred_at": event.occurred_at,
            "data": event.data.model_dump(mode="json"),
        }
        return new_job(tasks.of(Listen), data)
