"""queues and limits of jobs

Revision ID: 5d0c3e9a7b41
Revises: 141563fbd84b
Create Date: 2026-11-30 17:10:00.000000+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "5d0c3e9a7b41"
down_revision: str | Sequence[str] | None = "141563fbd84b"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_UNFINISHED = sa.text("finished_at IS NULL")
_RUNNING = sa.text("status = 'processing'")
_BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "core_job_gates",
        sa.Column("id", _BIGINT, nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("began", sa.JSON(), nullable=False),
        sa.Column("full_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_core_job_gates")),
        sa.UniqueConstraint("name", name=op.f("uq_core_job_gates_name")),
        sqlite_autoincrement=True,
    )
    op.add_column("core_jobs", sa.Column("queue", sa.String(length=64), server_default="default", nullable=False))
    op.add_column("core_jobs", sa.Column("priority", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("core_jobs", sa.Column("limit_key", sa.String(length=255), nullable=True))
    op.add_column("core_jobs", sa.Column("suspect", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute("UPDATE core_jobs SET queue = 'mail' WHERE task = 'core.mail.send' AND finished_at IS NULL")
    op.create_index(
        "ix_core_jobs_claim",
        "core_jobs",
        ["queue", "priority", "available_at", "id"],
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )
    op.create_index(
        "ix_core_jobs_running",
        "core_jobs",
        ["queue", "limit_key"],
        sqlite_where=_RUNNING,
        postgresql_where=_RUNNING,
    )
    op.create_index(
        "ix_core_jobs_suspect",
        "core_jobs",
        ["priority"],
        sqlite_where=sa.text("suspect = 1 AND finished_at IS NULL"),
        postgresql_where=sa.text("suspect AND finished_at IS NULL"),
    )
    op.drop_index("ix_core_jobs_available_at_id", table_name="core_jobs")


def downgrade() -> None:
    op.create_index(
        "ix_core_jobs_available_at_id",
        "core_jobs",
        ["available_at", "id"],
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )
    for index in ("ix_core_jobs_suspect", "ix_core_jobs_running"):
        op.drop_index(index, table_name="core_jobs")
    op.drop_index("ix_core_jobs_claim", table_name="core_jobs")
    for column in ("suspect", "limit_key", "priority", "queue"):
        op.drop_column("core_jobs", column)
    op.drop_table("core_job_gates")
