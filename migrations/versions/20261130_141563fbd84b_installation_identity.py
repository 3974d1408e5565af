"""installation identity

Revision ID: 141563fbd84b
Revises: 1b0c7caea513
Create Date: 2026-11-30 10:13:17.572416+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "141563fbd84b"
down_revision: str | Sequence[str] | None = "1b0c7caea513"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "core_installation",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("identity", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_core_installation")),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("core_installation")
