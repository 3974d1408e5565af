"""How lists read: columns instead of entities, fields that are no column, and always as many statements."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi import Response as HTTPResponse
from pydantic import BaseModel as Schema
from pydantic import Field
from sqlalchemy import ColumnElement, Integer, String, event, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from app.core.api import ListParamsBuilder, PaginatedResponse
from app.core.db import FilterParam, ListParams, Lookup, SortParam
from tests.auth.fixtures import AsUser
from tests.core.db.models import Customer, CustomerRepository, Order, OrderRepository
from tests.factories.user import UserFactory

orders = OrderRepository()


class BuyerRepository(CustomerRepository):
    """Customers with what their orders say, and a filter that asks two columns."""

    def list_field(self, name: str) -> ColumnElement[Any]:
        if name == "order_count":
            counted = select(func.count(Order.id)).where(Order.customer_id == Customer.id)
            return counted.correlate(Customer).scalar_subquery()
        return super().list_field(name)

    def list_condition(self, item: FilterParam) -> ColumnElement[bool]:
        if item.field == "anywhere":
            fields = (Customer.name, Customer.email)
            return or_(*(field.icontains(item.value, autoescape=True) for field in fields))
        return super().list_condition(item)


class EmailRead(Schema):
    """One column, which the API spells in its own way."""

    email: str = Field(alias="eMail")


class BuyerSortParam(SortParam):
    """A column and a field that is none."""

    field: Literal["id", "order_count"]


class IdSortParam(SortParam):
    """The least that a list sorts by."""

    field: Literal["id"]


class BuyerFilterParam(FilterParam):
    """A column and two fields that are none."""

    field: Literal["id", "order_count", "anywhere"]


class BuyerListParams(ListParams):
    """A query of customers."""

    model = Customer
    virtual: ClassVar[Mapping[str, TypeEngine[Any]]] = {"order_count": Integer(), "anywhere": String()}


class OrderCount(Schema):
    """The customer, with a field that is no column."""

    id: int
    order_count: int


buyers = BuyerRepository()
list_params = ListParamsBuilder(BuyerListParams, BuyerSortParam, BuyerFilterParam)


@pytest.fixture
async def http(shop: AsyncSession) -> AsyncIterator[httpx.AsyncClient]:
    """A list of three customers who ordered 0, 2 and 1 times."""
    app = FastAPI()

    @app.get("/buyers")
    async def list_buyers(
        params: Annotated[BuyerListParams, Depends(list_params)], request: Request, response: HTTPResponse
    ) -> PaginatedResponse[OrderCount]:
        result = await buyers.get_list(db=shop, params=params, into=OrderCount)
        return PaginatedResponse.of(result, request, response)

    ann, bob, zoe = [
        await buyers.create(db=shop, data={"email": f"{name}@example.com"}) for name in ("ann", "bob", "zoe")
    ]
    for number, customer in enumerate((bob, bob, zoe)):
        await orders.create(db=shop, data={"customer_id": customer.id, "number": number})
    assert ann.id == 1
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


@contextmanager
def selects(db: AsyncSession) -> Iterator[list[str]]:
    """The SELECT statements sent meanwhile."""
    engine = db.get_bind().engine
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


class TestVirtualFields:
    @pytest.mark.parametrize(
        ("query", "ids"),
        [
            ("sort=order_count:desc", [2, 3, 1]),
            ("filters=order_count:2", [2]),
            ("filters=order_count__lt:2", [1, 3]),
            ("filters=order_count__ne:[0,2]", [3]),
            ("filters=anywhere:BO", [2]),
            ("filters=anywhere:EXAMPLE,order_count__gte:1&sort=order_count", [3, 2]),
            ("filters=order_count__gte:1&cursor=", [2, 3]),
        ],
    )
    async def test_they_sort_and_filter(self, http: httpx.AsyncClient, query: str, ids: list[int]) -> None:
        answer = await http.get(f"/buyers?{query}")
        assert [item["id"] for item in answer.json()["data"]] == ids

    async def test_a_schema_may_have_them(self, http: httpx.AsyncClient) -> None:
        data = (await http.get("/buyers")).json()["data"]
        assert [item["order_count"] for item in data] == [0, 2, 1]

    def test_a_name_that_is_a_column_stops_the_start(self) -> None:
        class Params(ListParams):
            model = Customer
            virtual: ClassVar[Mapping[str, TypeEngine[Any]]] = {"email": String()}

        with pytest.raises(TypeError, match="virtual names columns: email"):
            ListParamsBuilder(Params, BuyerSortParam, BuyerFilterParam)

    async def test_a_repository_that_does_not_know_them_says_so(self, shop: AsyncSession) -> None:
        params = BuyerListParams(sort=(SortParam(field="order_count"),))
        with pytest.raises(TypeError, match="Customer has no column order_count"):
            await CustomerRepository().get_list(db=shop, params=params)


class TestNarrowedLookups:
    def test_only_those_are_taken_and_documented(self) -> None:
        class Filter(FilterParam):
            field: Literal["id", "email"]
            lookup: Literal[Lookup.EQ, Lookup.GTE] = Lookup.EQ

        class Params(ListParams):
            model = Customer

        app = FastAPI()

        @app.get("/")
        async def route(params: Annotated[Params, Depends(ListParamsBuilder(Params, IdSortParam, Filter))]) -> None: ...

        described = next(item for item in app.openapi()["paths"]["/"]["get"]["parameters"] if item["name"] == "filters")
        assert "`__gte`" in described["description"]
        assert "`__ilike`" not in described["description"]


class TestColumns:
    async def test_only_those_of_the_schema_are_read(self, shop: AsyncSession) -> None:
        await buyers.create(db=shop, data={"email": "a", "name": "secret"})
        for cursor in (None, ""):
            with selects(shop) as sent:
                result = await buyers.get_list(db=shop, params=ListParams(cursor=cursor), into=EmailRead)
            assert [item.email for item in result.items] == ["a"]
            assert "name" not in sent[0].replace("cursor_", "").partition("FROM")[0]

    async def test_what_is_not_flushed_yet_is_seen(self, shop: AsyncSession) -> None:
        shop.add(Customer(email="late"))
        result = await buyers.get_list(db=shop, params=ListParams(), into=EmailRead)
        assert ([item.email for item in result.items], result.total) == (["late"], 1)


class TestStatements:
    @pytest.mark.parametrize("rows", [0, 1, 50])
    async def test_a_page_is_two_and_a_cursor_one(self, shop: AsyncSession, rows: int) -> None:
        await buyers.create_many(db=shop, data=[{"email": str(number)} for number in range(rows)])
        for cursor, count in ((None, 2), ("", 1)):
            for into in (None, EmailRead):
                with selects(shop) as sent:
                    params = ListParams(per_page=100, cursor=cursor)
                    result = (
                        await buyers.get_list(db=shop, params=params)
                        if into is None
                        else await buyers.get_list(db=shop, params=params, into=into)
                    )
                assert (len(result.items), len(sent)) == (rows, count)

    @pytest.mark.parametrize(("query", "count"), [("", 2), ("&cursor=", 1)])
    async def test_of_a_route_too(self, db: AsyncSession, as_admin: AsUser, query: str, count: int) -> None:
        client = await as_admin()
        await UserFactory.create_batch(5)
        for per_page in (1, 5):
            with selects(db) as sent:
                answer = await client.get(f"/api/v1/users?per_page={per_page}{query}")
            assert len(answer.json()["data"]) == per_page
            assert len(sent) == 1 + count  # the caller and the session are one
