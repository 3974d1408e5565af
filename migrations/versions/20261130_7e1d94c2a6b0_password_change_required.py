"""password change required

Revision ID: 7e1d94c2a6b0
Revises: 5d0c3e9a7b41
Create Date: 2026-11-30 18:06:12.401377+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "7e1d94c2a6b0"
down_revision: str | Sequence[str] | None = "5d0c3e9a7b41"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # No batch: SQLite would make the table anew for a default that is an expression.
    op.add_column(
        "auth_users", sa.Column("password_change_required", sa.Boolean(), server_default=sa.false(), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("auth_users", "password_change_required")
