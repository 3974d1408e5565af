"""Queries of the audit log."""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Text, delete, or_, select, update
from sqlalchemy import cast as as_type
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.models import AuditEvent
from app.core.db import BaseRepository
from app.core.exceptions import NotFoundError, UniqueViolation


class AuditEventNotFound(NotFoundError):
    """The event does not exist, or has been purged."""

    code = "audit_event_not_found"
    default_detail = "The event was not found."


CLIENT = ("address", "user_agent", "request_id", "conversation_id")
"""The columns that lead to the client of an event."""


class AuditEventRepository(BaseRepository[AuditEvent]):
    """Adds, reads and deletes events; none is changed but to erase a user."""

    not_found = AuditEventNotFound

    async def add_once(self, *, db: AsyncSession, entity: AuditEvent) -> bool:
        """Store an event; return False where it is stored already."""
        try:
            async with db.begin_nested():
                await self.create(db=db, model=entity)
        except UniqueViolation:
            return False
        return True

    async def delete_oldest(self, *, db: AsyncSession, before: datetime, limit: int) -> int:
        """Delete up to `limit` events older than `before`; return the number deleted."""
        oldest = (
            select(AuditEvent.id)
            .where(AuditEvent.occurred_at < before)
            .order_by(AuditEvent.occurred_at, AuditEvent.id)
            .limit(limit)
        )
        statement = delete(AuditEvent).where(AuditEvent.id.in_(oldest))
        result = await db.execute(statement, execution_options={"synchronize_session": False})
        return cast(CursorResult[Any], result).rowcount

    def about(self, *, db: AsyncSession, user_id: int, fields: Iterable[str]) -> AsyncIterator[dict[str, Any]]:
        """Yield the events that the user caused, and those about the account."""
        return self.stream((AuditEvent.actor_id == user_id) | (AuditEvent.subject_id == user_id), db=db, fields=fields)

    async def anonymize(self, *, db: AsyncSession, user_id: int) -> None:
        """Remove the client from what the user did, or somebody unknown to the account; remove details about it."""
        by_user = (AuditEvent.actor_id == user_id) | (AuditEvent.subject_id == user_id) & AuditEvent.actor_id.is_(None)
        is_named = or_(*(getattr(AuditEvent, name).is_not(None) for name in CLIENT))
        await db.execute(update(AuditEvent).where(by_user, is_named).values(dict.fromkeys(CLIENT)))
        has_details = as_type(AuditEvent.details, Text) != "{}"
        await db.execute(update(AuditEvent).where(AuditEvent.subject_id == user_id, has_details).values(details={}))
