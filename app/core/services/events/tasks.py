"""One listener's run of one event, as a job."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.core.db.jobs import LISTEN_TASK
from app.core.services.events.interface import ListenedEvent
from app.core.services.events.registry import listeners
from app.core.services.queue.interface import BaseTask, current_job
from app.core.services.queue.registry import queued


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
        job = current_job()
        await found.hear(
            ListenedEvent(
                name=event,
                data=found.kind(kind).model_validate(data, by_alias=False, by_name=True),
                id=event_id,
                attempt=job.attempt if job else 1,
                occurred_at=occurred_at,
            )
        )
