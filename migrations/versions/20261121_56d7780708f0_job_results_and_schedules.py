"""job results and schedules

Revision ID: 56d7780708f0
Revises: 87ca7ddb0bbc
Create Date: 2026-11-21 03:14:45.628283+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "56d7780708f0"
down_revision: str | Sequence[str] | None = "87ca7ddb0bbc"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def _jobs() -> sa.Table:
    """The table before this revision: SQLite copies it, and with `--sql` cannot look."""
    return sa.Table(
        "core_jobs",
        sa.MetaData(),
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("task", sa.String(length=200), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("conversation_id", sa.String(length=128), nullable=True),
        sa.Column("dedup_key", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_core_jobs")),
        sa.UniqueConstraint("dedup_key", name=op.f("uq_core_jobs_dedup_key")),
        sa.Index(
            "ix_core_jobs_available_at_id",
            "available_at",
            "id",
            sqlite_where=sa.text("finished_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL"),
        ),
        sqlite_autoincrement=True,
    )


def upgrade() -> None:
    op.create_table(
        "core_schedules",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("task", sa.String(length=200), nullable=False),
        sa.Column("reached_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_core_schedules")),
        sa.UniqueConstraint("task", name=op.f("uq_core_schedules_task")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("core_jobs", copy_from=_jobs()) as batch_op:
        batch_op.add_column(sa.Column("result", sa.JSON(none_as_null=True), nullable=True))
        batch_op.drop_constraint(batch_op.f("uq_core_jobs_dedup_key"), type_="unique")
        batch_op.create_index(
            "uq_core_jobs_task_dedup_key",
            ["task", "dedup_key"],
            unique=True,
            sqlite_where=sa.text("dedup_key IS NOT NULL AND finished_at IS NULL"),
            postgresql_where=sa.text("dedup_key IS NOT NULL AND finished_at IS NULL"),
        )


def downgrade() -> None:
    # Keys may have been used again, and the old code knows no cancelled jobs.
    op.execute("UPDATE core_jobs SET dedup_key = NULL")
    op.execute("UPDATE core_jobs SET status = 'completed' WHERE status = 'cancelled'")
    with op.batch_alter_table("core_jobs", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_core_jobs_task_dedup_key",
            sqlite_where=sa.text("dedup_key IS NOT NULL AND finished_at IS NULL"),
            postgresql_where=sa.text("dedup_key IS NOT NULL AND finished_at IS NULL"),
        )
        batch_op.create_unique_constraint(batch_op.f("uq_core_jobs_dedup_key"), ["dedup_key"])
        batch_op.drop_column("result")

    op.drop_table("core_schedules")
