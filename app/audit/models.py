"""The table of this module."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Enum, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BIGINT, BaseModel


class Outcome(StrEnum):
    """Result of an attempt."""

    SUCCESS = "success"
    FAILURE = "failure"


class AuditEvent(BaseModel):
    """One security event. `actor_id` did it to `subject_id`: ids of users, who may be gone, so no foreign keys."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_occurred_at_id", "occurred_at", "id"),)

    # The same for every delivery of one event: a second delivery violates the constraint.
    event_id: Mapped[UUID] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(String(100))
    outcome: Mapped[Outcome] = mapped_column(
        Enum(Outcome, native_enum=False, length=16, values_callable=lambda kind: [item.value for item in kind])
    )
    actor_id: Mapped[int | None] = mapped_column(BIGINT, index=True)
    subject_id: Mapped[int | None] = mapped_column(BIGINT, index=True)
    address: Mapped[str | None] = mapped_column(String(64))
    user_agent: Mapped[str | None] = mapped_column(String(200))
    request_id: Mapped[str | None] = mapped_column(String(128))
    conversation_id: Mapped[str | None] = mapped_column(String(128))
    occurred_at: Mapped[datetime]
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
