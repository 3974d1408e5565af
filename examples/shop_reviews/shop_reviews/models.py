"""The package's tables; their names begin with its own."""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Integer, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BIGINT = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only a column that is exactly INTEGER


class Base(DeclarativeBase):
    """A base of its own: the package's tables are in no other's metadata."""


class Review(Base):
    """What a user says of a product. No foreign key: the tables of others may change without notice."""

    __tablename__ = "shop_reviews_reviews"
    __table_args__ = (
        UniqueConstraint("product_id", "author_id", name="uq_shop_reviews_reviews_product_id_author_id"),
        CheckConstraint("stars BETWEEN 1 AND 5", name="ck_shop_reviews_reviews_stars"),
    )

    id: Mapped[int] = mapped_column(BIGINT, primary_key=True)
    product_id: Mapped[int] = mapped_column(BIGINT)
    author_id: Mapped[int] = mapped_column(BIGINT, index=True)
    stars: Mapped[int]
    text: Mapped[str] = mapped_column(String(2000))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))
