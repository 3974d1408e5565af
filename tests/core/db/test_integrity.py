"""What the database refuses has a name and keeps its cause."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database, named_violations
from app.core.exceptions import (
    CheckViolation,
    ForeignKeyViolation,
    IntegrityViolation,
    NotNullViolation,
    UniqueViolation,
)
from tests.core.db.models import Customer, CustomerRepository, OrderRepository

customers = CustomerRepository()
orders = OrderRepository()

FOREIGN_KEY = "fk_shop_orders_customer_id_shop_customers"


@pytest.fixture
async def ann(shop: AsyncSession) -> Customer:
    """A customer with one order."""
    customer = await customers.create(db=shop, data={"email": "ann@example.com"})
    await orders.create(db=shop, data={"customer_id": customer.id, "number": 1})
    return customer


@pytest.fixture
def is_sqlite(shop: AsyncSession) -> bool:
    """Whether this is the half of the suite on SQLite."""
    return shop.get_bind().dialect.name == "sqlite"


async def refused(
    db: AsyncSession, write: Callable[[], Coroutine[Any, Any, object]], kind: type[IntegrityViolation]
) -> str | None:
    """The constraint that refused `write`; the transaction goes on."""
    with pytest.raises(kind) as caught:
        async with db.begin_nested():
            await write()
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, IntegrityError)
    return caught.value.constraint


class TestKinds:
    async def test_a_partial_unique_index(self, shop: AsyncSession, ann: Customer) -> None:
        constraint = await refused(
            shop, lambda: customers.create(db=shop, data={"email": "ann@example.com"}), UniqueViolation
        )
        assert constraint == "uq_shop_customers_email"

    async def test_a_unique_constraint_over_two_columns(self, shop: AsyncSession, ann: Customer) -> None:
        constraint = await refused(
            shop, lambda: orders.create(db=shop, data={"customer_id": ann.id, "number": 1}), UniqueViolation
        )
        assert constraint == "uq_shop_orders_customer_id_number"

    async def test_the_primary_key(self, shop: AsyncSession, ann: Customer) -> None:
        shop.expunge_all()
        constraint = await refused(
            shop, lambda: customers.create(db=shop, data={"id": ann.id, "email": "x"}), UniqueViolation
        )
        assert constraint == "pk_shop_customers"

    async def test_a_reference_to_an_absent_row(self, shop: AsyncSession, ann: Customer, is_sqlite: bool) -> None:
        constraint = await refused(
            shop, lambda: orders.create(db=shop, data={"customer_id": 99, "number": 1}), ForeignKeyViolation
        )
        assert constraint == (None if is_sqlite else FOREIGN_KEY)

    async def test_a_row_still_referred_to(self, shop: AsyncSession, ann: Customer, is_sqlite: bool) -> None:
        constraint = await refused(shop, lambda: customers.delete(db=shop, model=ann, hard=True), ForeignKeyViolation)
        assert constraint == (None if is_sqlite else FOREIGN_KEY)

    async def test_rows_still_referred_to(self, shop: AsyncSession, ann: Customer) -> None:
        await refused(shop, lambda: customers.delete_all(db=shop, hard=True), ForeignKeyViolation)

    async def test_a_missing_value(self, shop: AsyncSession, ann: Customer) -> None:
        constraint = await refused(
            shop, lambda: customers.update(db=shop, model=ann, data={"email": None}), NotNullViolation
        )
        assert constraint is None

    async def test_a_value_outside_a_check(self, shop: AsyncSession, ann: Customer) -> None:
        constraint = await refused(
            shop, lambda: customers.update(db=shop, model=ann, data={"points": -1}), CheckViolation
        )
        assert constraint == "ck_shop_customers_points_not_negative"

    async def test_one_of_many(self, shop: AsyncSession, ann: Customer) -> None:
        data = [{"email": "x"}, {"email": "y"}, {"email": "x"}]
        await refused(shop, lambda: customers.create_many(db=shop, data=data), UniqueViolation)
        assert await customers.count(db=shop) == 1

    async def test_an_index_over_an_expression(self, shop: AsyncSession, ann: Customer) -> None:
        await shop.execute(text("CREATE UNIQUE INDEX uq_lower_email ON shop_customers (lower(email))"))
        constraint = await refused(
            shop, lambda: customers.create(db=shop, data={"email": "ANN@example.com"}), UniqueViolation
        )
        assert constraint == "uq_lower_email"

    async def test_a_rule_of_another_kind(self, shop: AsyncSession, ann: Customer, is_sqlite: bool) -> None:
        async def write() -> None:
            with named_violations():
                await shop.execute(text(statement))

        if is_sqlite:
            statement = "INSERT INTO shop_customers (id) VALUES ('text')"
        else:
            await shop.execute(text("ALTER TABLE shop_customers ADD CONSTRAINT one EXCLUDE (points WITH =)"))
            statement = (
                "INSERT INTO shop_customers (email, points, created_at, updated_at) VALUES ('x', 0, now(), now())"
            )
        constraint = await refused(shop, write, IntegrityViolation)
        assert constraint == (None if is_sqlite else "one")

    async def test_a_table_of_other_metadata_has_no_constraint_name_on_sqlite(
        self, shop: AsyncSession, ann: Customer, is_sqlite: bool
    ) -> None:
        async def write() -> None:
            shop.add(Customer(email="ann@example.com"))
            with named_violations():
                await shop.flush()

        constraint = await refused(shop, write, UniqueViolation)
        assert constraint == (None if is_sqlite else "uq_shop_customers_email")


class TestUnits:
    async def test_the_end_of_a_unit_names_what_it_could_not_store(self, open_shop: Database) -> None:
        async with open_shop.session_scope() as db:
            await customers.create(db=db, data={"email": "ann@example.com"})
        with pytest.raises(UniqueViolation):
            async with open_shop.session_scope() as db:
                db.add(Customer(email="ann@example.com"))

    async def test_a_savepoint_lets_the_transaction_go_on(self, open_shop: Database) -> None:
        async with open_shop.session_scope() as db:
            await customers.create(db=db, data={"email": "ann@example.com"})
            with pytest.raises(UniqueViolation):
                async with db.begin_nested():
                    await customers.create(db=db, data={"email": "ann@example.com"})
            await customers.create(db=db, data={"email": "bob@example.com"})
        async with open_shop.session_scope(read_only=True) as db:
            assert await customers.count(db=db) == 2
