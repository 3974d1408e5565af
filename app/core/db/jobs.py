"""The jobs table, a row for all that must happen after a commit, written by that commit; and the schedules table."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Enum, Index, SmallInteger, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db.base import BaseModel, db_now

LISTEN_TASK = "events.listen"
DEDUP_KEY_TAKEN = text("dedup_key IS NOT NULL AND finished_at IS NULL")
RUNNING = text("status = 'processing'")
DEFAULT_QUEUE = "default"


class JobStatus(StrEnum):
    """The state of a job. `failed` waits for its next attempt; `completed`, `dead` and `cancelled` are final."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Job(BaseModel):
    """One run of one task.

    `available_at` is the earliest moment a runner may claim the row: its due time while it waits, the end of
    the lease while it is processed. So one query finds what is due and what a lost runner left behind.
    `attempts` counts claims. It and `started_at` name one claim: the writes of a runner whose lease another took over
    no longer match the row.
    A `suspect` was running when its process was lost, and runs alone since. A `limit_key` is what shares a limit.
    `principal` owns the personal data in the payload, as `user:7`: the row is deleted when that is erased.
    A `dedup_key` is taken while its job is unfinished; setting `finished_at` back to NULL may find it taken again.
    """

    __tablename__ = "core_jobs"
    __table_args__ = (
        Index(
            "ix_core_jobs_claim",
            "queue",
            "priority",
            "available_at",
            "id",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
        # As small as the numbers of suspects and of running jobs.
        Index(
            "ix_core_jobs_suspect",
            "priority",
            sqlite_where=text("suspect = 1 AND finished_at IS NULL"),
            postgresql_where=text("suspect AND finished_at IS NULL"),
        ),
        Index("ix_core_jobs_running", "queue", "limit_key", sqlite_where=RUNNING, postgresql_where=RUNNING),
        Index(
            "uq_core_jobs_task_dedup_key",
            "task",
            "dedup_key",
            unique=True,
            sqlite_where=DEDUP_KEY_TAKEN,
            postgresql_where=DEDUP_KEY_TAKEN,
        ),
        Index(
            "ix_core_jobs_principal",
            "principal",
            sqlite_where=text("principal IS NOT NULL"),
            postgresql_where=text("principal IS NOT NULL"),
        ),
    )

    created_at: Mapped[datetime] = mapped_column(default=db_now(), sort_order=100)  # which was pushed first
    task: Mapped[str] = mapped_column(String(200))
    # JSON, not JSONB: nothing queries inside a payload, and JSONB refuses NUL characters.
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    # Defaults of the server: processes of the version before insert rows too while a newer one is deployed.
    queue: Mapped[str] = mapped_column(String(64), default=DEFAULT_QUEUE, server_default=DEFAULT_QUEUE)
    priority: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    limit_key: Mapped[str | None] = mapped_column(String(255))
    suspect: Mapped[bool] = mapped_column(default=False, server_default=false())
    status: Mapped[JobStatus] = mapped_column(
        Enum(JobStatus, native_enum=False, length=16, values_callable=lambda kind: [item.value for item in kind]),
        default=JobStatus.PENDING,
    )
    attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    available_at: Mapped[datetime] = mapped_column(default=db_now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    request_id: Mapped[str | None] = mapped_column(String(128))
    conversation_id: Mapped[str | None] = mapped_column(String(128))
    dedup_key: Mapped[str | None] = mapped_column(String(255))
    principal: Mapped[str | None] = mapped_column(String(340))

    @property
    def heard(self) -> dict[str, str | None]:
        """Event and listener of a job that runs a listener; both None for any other task."""
        data = self.payload if self.task == LISTEN_TASK else {}
        return {"event": data.get("event"), "listener": data.get("listener")}


class JobGate(BaseModel):
    """State of a queue or a limit key (`queue mail`, `key stripe 7`) that a claim checks: paused, and recent starts.

    `began` holds the times, in seconds since 1970, of the starts that a rate still counts.
    """

    __tablename__ = "core_job_gates"

    name: Mapped[str] = mapped_column(String(300), unique=True)
    paused: Mapped[bool] = mapped_column(default=False, server_default=false())
    began: Mapped[list[float]] = mapped_column(JSON, default=list)
    full_until: Mapped[datetime | None]


class Schedule(BaseModel):
    """Last tick handled for a scheduled task. Of several schedulers, the one that advances it stores the job."""

    __tablename__ = "core_schedules"

    task: Mapped[str] = mapped_column(String(200), unique=True)
    reached_at: Mapped[datetime]
