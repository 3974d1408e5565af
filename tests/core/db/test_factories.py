"""The base of the factories is factory-boy's own, made asynchronous."""

from typing import Any

import factory
import pytest
from factory.alchemy import SQLAlchemyModelFactory
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tests.core.db.models import Customer, Order
from tests.factories.async_alchemy_factory import AsyncSQLAlchemyModelFactory


class CustomerFactory(AsyncSQLAlchemyModelFactory[Customer]):
    class Meta:
        model = Customer
        sqlalchemy_get_or_create = ("email",)
        sqlalchemy_session_persistence = "flush"

    email = factory.Faker("safe_email")
    name = factory.Faker("name")


class OrderFactory(AsyncSQLAlchemyModelFactory[Order]):
    class Meta:
        model = Order
        exclude = ("customer",)

    customer = factory.SubFactory(CustomerFactory)
    customer_id = factory.LazyAttribute(lambda order: order.customer.id)
    number = factory.Sequence(lambda n: n)


async def count(db: AsyncSession, model: type[Any]) -> int:
    return await db.scalar(select(func.count()).select_from(model)) or 0


async def test_it_is_factory_boys(shop: AsyncSession) -> None:
    assert issubclass(AsyncSQLAlchemyModelFactory, SQLAlchemyModelFactory)
    ann = await CustomerFactory.create(name="Ann")
    assert (ann.name, "@example." in ann.email) == ("Ann", True)
    assert await count(shop, Customer) == 1


async def test_what_is_there_is_taken(shop: AsyncSession) -> None:
    ann = await CustomerFactory.create(email="ann@example.com", name="Ann")
    again = await CustomerFactory.create(email="ann@example.com", name="Other")
    assert (again is ann, again.name) == (True, "Ann")
    first, second = await CustomerFactory.create_batch(2, email="bob@example.com")
    assert first is second
    assert await count(shop, Customer) == 2


async def test_parts_are_flushed_before_what_needs_their_ids(shop: AsyncSession) -> None:
    orders = await OrderFactory.create_batch(2, customer__email="ann@example.com")
    (customer_id,) = {order.customer_id for order in orders}
    assert await shop.get(Customer, customer_id) is not None
    assert await count(shop, Order) == 2


async def test_without_a_session_it_says_what_to_ask_for() -> None:
    with pytest.raises(RuntimeError, match="also asks for `db` or `committed`"):
        await CustomerFactory.create()
