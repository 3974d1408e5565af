"""What this module keeps about a user: the events that they caused, and those about their account."""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.repositories import CLIENT, AuditEventRepository

SHOWN = ("kind", "outcome", "actor_id", "subject_id", *CLIENT, "occurred_at", "details")


class EventsOfUser:
    """Exports the events of a user, and takes the person out of them."""

    events = AuditEventRepository()

    async def export(self, user_id: int, *, db: AsyncSession) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield the events; of what somebody else did to the account not from where."""
        async for event in self.events.about(db=db, user_id=user_id, fields=SHOWN):
            others = event["actor_id"] not in (None, user_id)
            yield "event", {**event, **dict.fromkeys(CLIENT)} if others else event

    async def erase(self, user_id: int, *, db: AsyncSession) -> None:
        """Leave of the events what happened, when, and the ids of users."""
        await self.events.anonymize(db=db, user_id=user_id)


personal_data = EventsOfUser()
