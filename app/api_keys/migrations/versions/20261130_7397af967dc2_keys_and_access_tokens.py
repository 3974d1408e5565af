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
        sa.Column("id", ID, nullable=False),
        sa.Column("owner_id", ID, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=40), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=True),
        sa.Column("previous_until", MOMENT, nullable=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("last_refused_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys_keys"),
        sa.UniqueConstraint("prefix", name="uq_api_keys_keys_prefix"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_api_keys_keys_owner_id", "api_keys_keys", ["owner_id"])
    op.create_table(
        "api_keys_tokens",
        sa.Column("id", ID, nullable=False),
        sa.Column("api_key_id", ID, nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys_keys.id"], "fk_api_keys_tokens_api_key_id_api_keys_keys", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_api_keys_tokens_token_hash"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_api_keys_tokens_api_key_id", "api_keys_tokens", ["api_key_id"])


def downgrade() -> None:
    op.drop_table("api_keys_tokens")
    op.drop_table("api_keys_keys")
