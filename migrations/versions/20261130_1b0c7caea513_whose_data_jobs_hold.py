"""whose data jobs hold

Revision ID: 1b0c7caea513
Revises: 3c1f9b70d2ae
Create Date: 2026-11-30 10:00:37.309799+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "1b0c7caea513"
down_revision: str | Sequence[str] | None = "3c1f9b70d2ae"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("core_jobs", sa.Column("principal", sa.String(length=340), nullable=True))
    op.create_index(
        "ix_core_jobs_principal",
        "core_jobs",
        ["principal"],
        unique=False,
        sqlite_where=sa.text("principal IS NOT NULL"),
        postgresql_where=sa.text("principal IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_core_jobs_principal", table_name="core_jobs")
    op.drop_column("core_jobs", "principal")
