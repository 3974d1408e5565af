"""Queries of the audit log."""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.models import AuditEvent
from app.core.db import BaseRepository
from app.core.exceptions import NotFoundError, UniqueViolation


class AuditEventNotFound(NotFoundError):
    """The event does not exist, or has been purged."""

    code = "audit_event_not_found"
    default_detail = "The event was not found."


class AuditEventRepository(BaseRepository[AuditEvent]):
    """Adds, reads and deletes events; no event is ever changed."""

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
