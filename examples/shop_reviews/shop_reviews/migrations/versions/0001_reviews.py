"""reviews

Revision ID: shop_reviews_0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "shop_reviews_0001"
down_revision = None
branch_labels = None
depends_on = None

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "shop_reviews_reviews",
        sa.Column("id", BIGINT, nullable=False),
        sa.Column("product_id", BIGINT, nullable=False),
        sa.Column("author_id", BIGINT, nullable=False),
        sa.Column("stars", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(length=2000), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("stars BETWEEN 1 AND 5", name="ck_shop_reviews_reviews_stars"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("product_id", "author_id", name="uq_shop_reviews_reviews_product_id_author_id"),
    )
    op.create_index("ix_shop_reviews_reviews_author_id", "shop_reviews_reviews", ["author_id"])


def downgrade() -> None:
    op.drop_table("shop_reviews_reviews")
