"""The rules of this module."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.models import AuditEvent, Outcome
from app.audit.repositories import AuditEventRepository
from app.audit.schemas import AuditEventListParams, AuditEventRead, AuditEventRow
from app.auth import AuthGatewayInterface, SecurityEvent
from app.core.db import PaginatedResult, utcnow
from app.core.deps import logger
from app.core.services.events import ListenedEvent

PURGE_BATCH = 1000

# Columns of their own, and what names a person: that is asked of the gateway, which forgets who is deleted.
_NOT_DETAILS = {*SecurityEvent.model_fields, "id", "email", "username"}


class AuditService:
    """Keeps security events, shows them, and forgets them when their time is up."""

    def __init__(self, *, events: AuditEventRepository, gateway: AuthGatewayInterface) -> None:
        self.events = events
        self.gateway = gateway

    async def record(self, event: ListenedEvent[SecurityEvent], *, db: AsyncSession, outcome: Outcome) -> None:
        """Keep an event, once however often it is delivered. What only its kind says goes into `details`."""
        data = event.data
        row = AuditEvent(
            event_id=event.id,
            kind=event.name,
            outcome=outcome,
            actor_id=data.actor_id,
            subject_id=data.user_id,
            occurred_at=event.occurred_at,
            details=data.model_dump(mode="json", exclude=_NOT_DETAILS),
            **data.origin.model_dump(),
        )
        await self.events.add_once(db=db, entity=row)
        await self.events.commit(db=db)

    async def get(self, audit_event_id: int, *, db: AsyncSession) -> AuditEventRead:
        """One event; AuditEventNotFound otherwise."""
        stored = AuditEventRow.model_validate(await self.events.require(db=db, id=audit_event_id))
        return _named(stored, await self._usernames([stored]))

    async def get_list(self, params: AuditEventListParams, *, db: AsyncSession) -> PaginatedResult[AuditEventRead]:
        """One page of the events; the users of all of them are asked for at once."""
        page = await self.events.get_list(db=db, params=params, into=AuditEventRow)
        usernames = await self._usernames(page.items)
        return page.map(lambda row: _named(row, usernames))

    async def purge(self, kept: timedelta, *, db: AsyncSession, batch: int = PURGE_BATCH) -> int:
        """Remove events older than `kept`, each batch in a transaction of its own: nobody waits for long."""
        before, removed = utcnow() - kept, 0
        while count := await self.events.delete_oldest(db=db, before=before, limit=batch):
            await self.events.commit(db=db)
            removed += count
        await logger.a_info("audit events purged", count=removed)
        return removed

    async def _usernames(self, rows: Sequence[AuditEventRow]) -> dict[int | None, str]:
        ids = {user_id for row in rows for user_id in (row.actor_id, row.subject_id) if user_id is not None}
        users = await self.gateway.get_users(sorted(ids)) if ids else []
        return {user.id: user.username for user in users}


def _named(row: AuditEventRow, usernames: dict[int | None, str]) -> AuditEventRead:
    return AuditEventRead(
        **row.model_dump(),
        actor_username=usernames.get(row.actor_id),
        subject_username=usernames.get(row.subject_id),
    )
