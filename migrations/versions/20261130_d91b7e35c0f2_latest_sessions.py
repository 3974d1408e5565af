"""latest sessions

Revision ID: d91b7e35c0f2
Revises: c4a82e6f9b17
Create Date: 2026-11-30 21:40:00.000000+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "d91b7e35c0f2"
down_revision: str | Sequence[str] | None = "c4a82e6f9b17"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_UNREVOKED = sa.text("revoked_at IS NULL")


def upgrade() -> None:
    # Sessions that have ended stay for 90 days: a login must not read them all.
    op.create_index("ix_auth_sessions_user_id_id", "auth_sessions", ["user_id", "id"])
    op.create_index(
        "ix_auth_sessions_unrevoked",
        "auth_sessions",
        ["user_id"],
        sqlite_where=_UNREVOKED,
        postgresql_where=_UNREVOKED,
    )
    op.drop_index("ix_auth_sessions_user_id", table_name="auth_sessions")


def downgrade() -> None:
    op.create_index("ix_auth_sessions_user_id", "auth_sessions", ["user_id"])
    op.drop_index("ix_auth_sessions_unrevoked", table_name="auth_sessions")
    op.drop_index("ix_auth_sessions_user_id_id", table_name="auth_sessions")
