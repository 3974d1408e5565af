"""verify until

Revision ID: c4a82e6f9b17
Revises: 8a2f6c0d4e17
Create Date: 2026-11-30 20:31:40.118202+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "c4a82e6f9b17"
down_revision: str | Sequence[str] | None = "8a2f6c0d4e17"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # NULL for every account there is: nobody knows which of them registered themselves.
    op.add_column("auth_users", sa.Column("verify_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("auth_users", "verify_until")
