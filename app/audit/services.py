"""Store, show and purge security events."""

from collections.abc import Sequence
from dataclasses import dataclass
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

# These have columns of their own, or name a person: names come from the gateway, which forgets deleted users.
_NOT_DETAILS = {*SecurityEvent.model_fields, "id", "email", "username"}


@dataclass(kw_only=True)
class AuditService:
    """Stores security events, shows them with the names of users, and purges old ones."""

    events: AuditEventRepository
    gateway: AuthGatewayInterface

    async def record(self, event: ListenedEvent[SecurityEvent], *, db: AsyncSession, outcome: Outcome) -> None:
        """Store an event once, however often it is delivered; the fields of its own kind go into `details`."""
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
        """Return one event, or raise AuditEventNotFound."""
        stored = AuditEventRow.model_validate(await self.events.require(db=db, id=audit_event_id))
        return _named(stored, await self._usernames([stored]))

    async def get_list(self, params: AuditEventListParams, *, db: AsyncSession) -> PaginatedResult[AuditEventRead]:
        """Return one page of the events, with one query for the users of all of them."""
        page = await self.events.get_list(db=db, params=params, into=AuditEventRow)
        usernames = await self._usernames(page.items)
        return page.map(lambda row: _named(row, usernames))

    async def purge(self, kept: timedelta, *, db: AsyncSession, batch: int = PURGE_BATCH) -> int:
        """Delete events older than `kept`, one transaction per batch so that locks are short; return the number."""
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
