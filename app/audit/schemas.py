"""Schemas of events, their lists, sorts and filters."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.audit.models import AuditEvent, Outcome
from app.core.db import FilterParam, ListParams, SortParam


class AuditEventRow(BaseModel):
    """An event as it is stored."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: int
    event_id: UUID
    kind: str = Field(description="What happened: the name of the event", examples=["login_failed"])
    outcome: Outcome
    actor_id: int | None = Field(description="Who did it; null where nobody was proven")
    subject_id: int | None = Field(description="Whose account it is; null where there is none")
    address: str | None
    user_agent: str | None
    request_id: str | None = Field(description="Leads to the request's lines in the log")
    conversation_id: str | None
    occurred_at: datetime
    details: dict[str, Any] = Field(description="What else this kind of event says")


class AuditEventRead(AuditEventRow):
    """An event as the API shows it. The names are today's; null for nobody, and for users who are deleted."""

    actor_username: str | None
    subject_username: str | None


class AuditEventSortParam(SortParam):
    """Sort fields of events."""

    field: Literal["id", "occurred_at", "kind", "outcome"]


class AuditEventFilterParam(FilterParam):
    """Filter fields of events."""

    field: Literal[
        "id",
        "event_id",
        "kind",
        "outcome",
        "actor_id",
        "subject_id",
        "address",
        "request_id",
        "conversation_id",
        "occurred_at",
    ]


class AuditEventListParams(ListParams):
    """A list of events."""

    model = AuditEvent
