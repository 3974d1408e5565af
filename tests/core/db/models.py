"""Tables of these tests alone: their metadata is not the application's."""

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BaseModel, BaseRepository, SoftDeleteMixin, live_unique
from app.core.db.base import NAMING_CONVENTION
from app.core.exceptions import NotFoundError


class ShopModel(BaseModel):
    """Base of the tables here."""

    __abstract__ = True
    metadata = sa.MetaData(naming_convention=NAMING_CONVENTION)


class Customer(SoftDeleteMixin, ShopModel):
    """A row that is marked when deleted, its address free again."""

    __tablename__ = "shop_customers"
    __table_args__ = (
        live_unique("uq_shop_customers_email", "email"),
        sa.CheckConstraint("points >= 0", name="points_not_negative"),
    )

    email: Mapped[str] = mapped_column(sa.String(100))
    name: Mapped[str | None] = mapped_column(sa.String(100))
    points: Mapped[int] = mapped_column(default=0)


class Order(ShopModel):
    """A row that is removed when deleted, and that keeps its customer from being removed."""

    __tablename__ = "shop_orders"
    __table_args__ = (sa.UniqueConstraint("customer_id", "number"),)

    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("shop_customers.id", ondelete="RESTRICT"))
    number: Mapped[int]


class Color(Enum):
    """An enum stored by name."""

    RED = "red"
    BLUE = "blue"


class Sample(ShopModel):
    """A column of every type that a list can be filtered by, and one of a type that it cannot."""

    __tablename__ = "shop_samples"

    text: Mapped[str] = mapped_column(sa.String(50))
    small: Mapped[int] = mapped_column(sa.SmallInteger)
    number: Mapped[int]
    big: Mapped[int] = mapped_column(sa.BigInteger)
    flag: Mapped[bool]
    price: Mapped[Decimal] = mapped_column(sa.Numeric(8, 2))
    ratio: Mapped[float]
    born: Mapped[date]
    seen_at: Mapped[datetime]
    key: Mapped[UUID]
    plain_key: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False))
    color: Mapped[Color] = mapped_column(sa.Enum(Color, native_enum=False, length=10))
    size: Mapped[str] = mapped_column(sa.Enum("small", "large", name="size"))
    extra: Mapped[dict[str, int]] = mapped_column(sa.JSON().with_variant(JSONB(), "postgresql"))

    VALUES: ClassVar[dict[str, object]] = {
        "text": "a,b:c",
        "small": -7,
        "number": 2_000_000_000,
        "big": 2**62,
        "flag": True,
        "price": Decimal("10.50"),
        "ratio": 0.25,
        "born": date(2000, 2, 29),
        "key": UUID(int=1),
        "plain_key": str(UUID(int=2)),
        "color": Color.BLUE,
        "size": "large",
        "extra": {},
    }


class Word(ShopModel):
    """Text in an order of its own: not that of its bytes, where the database knows another."""

    __tablename__ = "shop_words"

    text: Mapped[str] = mapped_column(sa.String(20).with_variant(sa.String(20, collation="en-x-icu"), "postgresql"))


class Shout(sa.TypeDecorator[str]):
    """A type of the application's own."""

    impl = sa.String(20)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and value.upper()


class CustomerNotFound(NotFoundError):
    """There is no such customer."""


class CustomerRepository(BaseRepository[Customer]):
    """Customers."""

    model = Customer
    not_found = CustomerNotFound


class OrderRepository(BaseRepository[Order]):
    """Orders."""

    model = Order


class SampleRepository(BaseRepository[Sample]):
    """Samples."""

    model = Sample


class WordRepository(BaseRepository[Word]):
    """Words."""

    model = Word
