"""What every table shares."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import bindparam, select, text
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import db_now, utcnow
from tests.core.db.models import Customer, Sample
from tests.utils import freeze


class TestDict:
    def test_from_dict_and_to_dict_are_each_others_reverse(self) -> None:
        customer = Customer.from_dict({"id": 3, "email": "ann@example.com", "name": None, "points": 2})
        assert customer.to_dict(exclude=("created_at", "updated_at", "deleted_at")) == {
            "id": 3,
            "email": "ann@example.com",
            "name": None,
            "points": 2,
        }

    def test_columns_come_in_table_order(self) -> None:
        assert list(Customer().to_dict()) == ["id", "email", "name", "points", "created_at", "updated_at", "deleted_at"]

    def test_an_unknown_key_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="Customer has no column nick"):
            Customer.from_dict({"email": "ann@example.com", "nick": "a"})

    def test_an_unknown_name_leaves_the_row_as_it_was(self) -> None:
        customer = Customer(email="ann@example.com")
        with pytest.raises(TypeError, match="no column metadata, to_dict"):
            customer.update(email="bob@example.com", to_dict=1, metadata=2)
        assert customer.email == "ann@example.com"

    def test_repr_tells_the_row_and_no_value(self) -> None:
        assert repr(Customer(id=3, email="ann@example.com")) == "<Customer id=3>"


class TestTimeStamps:
    async def test_they_follow_the_clock_of_the_application(self, shop: AsyncSession) -> None:
        with freeze("2026-01-31T12:00:00Z"):
            customer = Customer(email="ann@example.com")
            shop.add(customer)
            await shop.flush()
        noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
        assert (customer.created_at, customer.updated_at) == (noon, noon)
        with freeze("2026-01-31T13:00:00Z"):
            customer.update(name="Ann")
            await shop.flush()
        await shop.refresh(customer)
        assert (customer.created_at, customer.updated_at) == (noon, noon + timedelta(hours=1))


class TestUtcDateTime:
    async def test_a_moment_comes_back_in_utc(self, shop: AsyncSession) -> None:
        east = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
        sample = Sample(**Sample.VALUES, seen_at=east)
        shop.add(sample)
        await shop.flush()
        await shop.refresh(sample)
        assert sample.seen_at == east
        assert sample.seen_at.tzinfo is UTC

    async def test_a_naive_moment_is_refused(self, shop: AsyncSession) -> None:
        shop.add(Sample(**Sample.VALUES, seen_at=datetime(2026, 1, 31)))  # noqa: DTZ001
        with pytest.raises(StatementError, match="a naive datetime is refused"):
            await shop.flush()


class TestIds:
    async def test_the_id_of_a_removed_row_is_never_given_again(self, shop: AsyncSession) -> None:
        first = Customer(email="ann@example.com")
        shop.add(first)
        await shop.flush()
        await shop.execute(text("DELETE FROM shop_customers"))
        second = Customer(email="bob@example.com")
        shop.add(second)
        await shop.flush()
        assert second.id > first.id


class TestDatabaseClock:
    async def test_stands_where_the_test_stops_it_and_adds_seconds(self, db: AsyncSession) -> None:
        nine = datetime(2026, 1, 2, 9, tzinfo=UTC)
        with freeze(nine):
            (row,) = await db.execute(select(db_now(), db_now(90.5), db_now(bindparam("after"))), {"after": -60})
        assert tuple(row) == (nine, nine + timedelta(seconds=90.5), nine - timedelta(minutes=1))

    async def test_goes_on_from_statement_to_statement_of_a_transaction(self, db: AsyncSession) -> None:
        before = utcnow()
        first, second = [(await db.execute(select(db_now()))).scalar_one() for _ in range(2)]
        assert first < second
        assert abs(first - before) < timedelta(minutes=1)
