"""core.mail.send: `mail.send` is a name of the fork's own now

Revision ID: 3c1f9b70d2ae
Revises: 43bdf9cd49eb
Create Date: 2026-11-30 10:05:00.000000+00:00
"""

from collections.abc import Sequence

from alembic import op

revision: str = "3c1f9b70d2ae"
down_revision: str | Sequence[str] | None = "43bdf9cd49eb"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("UPDATE core_jobs SET task = 'core.mail.send' WHERE task = 'mail.send'")


def downgrade() -> None:
    op.execute("UPDATE core_jobs SET task = 'mail.send' WHERE task = 'core.mail.send'")
