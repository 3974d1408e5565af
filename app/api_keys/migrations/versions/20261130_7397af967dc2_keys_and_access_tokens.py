"""keys and access tokens

Revision ID: 7397af967dc2
Revises:
Create Date: 2026-11-30 20:41:38.552740+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "7397af967dc2"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ID, MOMENT = sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "api_keys_keys",
        sa.Column("id", ID, primary_key=True),
        sa.Column("owner_id", ID, nullable=False, index=True),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=40), nullable=False, unique=True),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("previous_hash", sa.String(length=64)),
        sa.Column("previous_until", MOMENT),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("last_used_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "api_keys_tokens",
        sa.Column("id", ID, primary_key=True),
        sa.Column("api_key_id", ID, sa.ForeignKey("api_keys_keys.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("token_hash", sa.String(length=64), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("api_keys_tokens")
    op.drop_table("api_keys_keys")
