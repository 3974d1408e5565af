"""Cursor paging over HTTP: its answers, and that no cursor of another query is taken."""

import base64
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, Request
from fastapi import Response as HTTPResponse
from pydantic import BaseModel as Schema
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from app.core.api import ListParamsBuilder, PaginatedResponse
from app.core.api.errors import ErrorBoundary, add_error_handlers
from app.core.api.input_guard import InputGuard
from app.core.db import BIGINT, FilterParam, ListParams, SortParam, UtcDateTime, utcnow
from app.core.db.keyset import Keyset, Place, encoded, key_type
from tests.core.db.models import Customer, CustomerRepository, Order, Sample, SampleRepository, Shout

customers = CustomerRepository()


class CustomerRead(Schema):
    """A customer as this list shows it."""

    id: int
    email: str


class CustomerSortParam(SortParam):
    """Two columns are NOT NULL, one is not."""

    field: Literal["id", "email", "points", "name"]


class CustomerFilterParam(FilterParam):
    """What customers can be filtered by."""

    field: Literal["id", "points"]


class CustomerListParams(ListParams):
    """A query of customers."""

    model = Customer


class SampleFilterParam(FilterParam):
    """As little as a list may have."""

    field: Literal["id"]


class SampleSortParam(SortParam):
    """Every column whose place a cursor can hold."""

    field: Literal[
        "id", "text", "small", "number", "big", "flag", "price", "ratio", "born", "seen_at", "key", "plain_key",
        "color", "size", "created_at", "updated_at",
    ]  # fmt: skip


class SampleListParams(ListParams):
    """A query of samples."""

    model = Sample


list_params = ListParamsBuilder(CustomerListParams, CustomerSortParam, CustomerFilterParam)
sample_params = ListParamsBuilder(SampleListParams, SampleSortParam, SampleFilterParam)


@pytest.fixture
def application(shop: AsyncSession) -> FastAPI:
    """A list of customers."""
    app = FastAPI()

    @app.get("/customers")
    async def list_customers(
        params: Annotated[CustomerListParams, Depends(list_params)], request: Request, response: HTTPResponse
    ) -> PaginatedResponse[CustomerRead]:
        result = await customers.get_list(db=shop, params=params, into=CustomerRead)
        return PaginatedResponse.of(result, request, response)

    @app.get("/samples")
    async def list_samples(params: Annotated[SampleListParams, Depends(sample_params)]) -> int:
        return len((await SampleRepository().get_list(db=shop, params=params)).items)

    app.add_middleware(InputGuard, max_body_size=1024)
    app.add_middleware(ErrorBoundary)
    add_error_handlers(app)
    return app


@pytest.fixture
async def http(application: FastAPI, shop: AsyncSession) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that list, in which there are five customers of 0, 1, 1, 2 and 2 points."""
    points = {"a": 0, "b": 1, "c": 1, "d": 2, "e": 2}
    rows = [{"email": f"{name}@example.com", "points": count} for name, count in points.items()]
    await customers.create_many(db=shop, data=rows)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as client:
        yield client


async def ask(http: httpx.AsyncClient, **query: Any) -> tuple[list[int], str | None, str | None]:
    """The ids of a page, and the cursors of the next one and the one before."""
    answer = await http.get("/customers", params={"cursor": "", "per_page": 2, **query})
    assert answer.status_code == 200, answer.text
    pagination = answer.json()["meta"]["pagination"]
    return [item["id"] for item in answer.json()["data"]], pagination["next_cursor"], pagination["prev_cursor"]


async def refused(http: httpx.AsyncClient, parameter: str, kind: str, **query: Any) -> None:
    """The query is a 422 about `parameter`."""
    answer = await http.get("/customers", params=query)
    assert answer.status_code == 422, answer.text
    (fault,) = answer.json()["errors"]
    assert (fault["loc"], fault["type"]) == (["query", parameter], kind)
    assert not (sent := query.get("cursor", "").strip()) or sent not in fault["msg"]


async def some_cursor(http: httpx.AsyncClient, **query: Any) -> str:
    """The cursor of the second page."""
    _, ahead, _ = await ask(http, **query)
    assert ahead
    return ahead


class TestPages:
    @pytest.mark.parametrize(
        ("sort", "ids"),
        [
            ({}, [1, 2, 3, 4, 5]),
            ({"sort": "id:desc"}, [5, 4, 3, 2, 1]),
            ({"sort": "points"}, [1, 2, 3, 4, 5]),
            ({"sort": "points:desc"}, [5, 4, 3, 2, 1]),
            ({"sort": "email:desc", "filters": "points__gte:1"}, [5, 4, 3, 2]),
        ],
    )
    async def test_there_and_back(self, http: httpx.AsyncClient, sort: dict[str, str], ids: list[int]) -> None:
        pages = [await ask(http, **sort)]
        while ahead := pages[-1][1]:
            pages.append(await ask(http, cursor=ahead, **sort))
        assert [page[0] for page in pages] == [ids[i : i + 2] for i in range(0, len(ids), 2)]

        back = [pages.pop()]
        while before := back[-1][2]:
            back.append(await ask(http, cursor=before, **sort))
        assert [page[0] for page in back[1:]] == [page[0] for page in reversed(pages)]

    async def test_the_answer_says_where_it_goes_on_and_counts_nothing(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/customers?cursor=&per_page=2&sort=email")
        pagination = answer.json()["meta"]["pagination"]
        assert pagination == {"per_page": 2, "next_cursor": pagination["next_cursor"], "prev_cursor": None}
        assert "x-total-count" not in answer.headers
        assert answer.headers["link"] == (
            '</customers?per_page=2&sort=email&cursor=>; rel="first", '
            f'</customers?per_page=2&sort=email&cursor={pagination["next_cursor"]}>; rel="next"'
        )

    async def test_a_last_page_that_is_full_is_the_last(self, http: httpx.AsyncClient) -> None:
        assert await ask(http, per_page=5) == ([1, 2, 3, 4, 5], None, None)

    async def test_an_empty_list_leads_nowhere(self, http: httpx.AsyncClient) -> None:
        assert await ask(http, filters="id:99") == ([], None, None)

    async def test_the_row_of_a_cursor_may_be_gone(self, http: httpx.AsyncClient, shop: AsyncSession) -> None:
        ahead = await some_cursor(http, sort="points")
        await customers.delete(db=shop, model_id=2)
        assert (await ask(http, sort="points", cursor=ahead))[0] == [3, 4]

    async def test_an_empty_page_leads_back_to_every_row(self, http: httpx.AsyncClient, shop: AsyncSession) -> None:
        ahead = await some_cursor(http, per_page=4)
        await customers.delete(db=shop, model_id=5)
        ids, nothing, back = await ask(http, cursor=ahead)
        assert (ids, nothing) == ([], None)
        assert (await ask(http, cursor=back))[0] == [3, 4]

        _, _, first = await ask(http, cursor=ahead, per_page=4)
        await customers.delete_all(db=shop, hard=True, id=[1, 2, 3, 4])
        ids, forth, nothing = await ask(http, cursor=first)
        assert (ids, nothing) == ([], None)
        late = await customers.create(db=shop, data={"email": "late@example.com"})
        assert (await ask(http, cursor=forth))[0] == [late.id]

    async def test_the_size_of_the_page_may_change_on_the_way(self, http: httpx.AsyncClient) -> None:
        assert (await ask(http, cursor=await some_cursor(http), per_page=100))[0] == [3, 4, 5]


class TestRefused:
    @pytest.mark.parametrize("page", ["1", "2"])
    async def test_a_page_beside_a_cursor(self, http: httpx.AsyncClient, page: str) -> None:
        await refused(http, "page", "page_with_cursor", cursor="", page=page)

    async def test_more_than_one_sort(self, http: httpx.AsyncClient) -> None:
        await refused(http, "sort", "too_many", cursor="", sort="points,id")

    async def test_a_sort_that_can_be_null(self, http: httpx.AsyncClient) -> None:
        await refused(http, "sort", "unfit_for_cursor", cursor="", sort="name")

    @pytest.mark.parametrize(
        "other",
        [
            {},
            {"sort": "email:desc"},
            {"sort": "points"},
            {"sort": "id"},
            {"sort": "email", "filters": "points:1"},
        ],
    )
    async def test_a_cursor_of_another_query(self, http: httpx.AsyncClient, other: dict[str, str]) -> None:
        ahead = await some_cursor(http, sort="email")
        await refused(http, "cursor", "invalid_cursor", cursor=ahead, **other)

    async def test_a_cursor_of_other_filters(self, http: httpx.AsyncClient) -> None:
        ahead = await some_cursor(http, filters="points__gte:1")
        await refused(http, "cursor", "invalid_cursor", cursor=ahead, filters="points__gte:2")
        await refused(http, "cursor", "invalid_cursor", cursor=ahead)

    async def test_any_change_of_a_cursor(self, http: httpx.AsyncClient) -> None:
        ahead = await some_cursor(http, sort="email")
        changed = [ahead[:i] + ("B" if letter == "A" else "A") + ahead[i + 1 :] for i, letter in enumerate(ahead)]
        for cursor in [*changed, ahead[:-1], ahead[1:], ahead + "A", ahead + "=", ahead + " ", ahead * 2, "!" + ahead]:
            await refused(http, "cursor", "invalid_cursor", cursor=cursor, sort="email")

    @pytest.mark.parametrize(
        "cursor", ["0", "null", "None", "=", " ", "\u00e9", "A" * 5000, "W10", "bnVsbA", "../..", "%"]
    )
    async def test_what_never_was_a_cursor(self, http: httpx.AsyncClient, cursor: str) -> None:
        await refused(http, "cursor", "invalid_cursor", cursor=cursor)

    @pytest.mark.parametrize("query", ["cursor=%00", "cursor=%FF", "cursor=%ED%A0%80", "cursor=&cursor="])
    async def test_what_no_parameter_may_be(self, http: httpx.AsyncClient, query: str) -> None:
        answer = await http.get(f"/customers?{query}")
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "cursor"])

    async def test_a_place_without_its_checksum(self, http: httpx.AsyncClient) -> None:
        for text in (b"[null,1,0,0]", bytes(8) + b"[null,1,false,false]", bytes(8), bytes(8) + b"{"):
            cursor = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
            await refused(http, "cursor", "invalid_cursor", cursor=cursor)

    async def test_a_cursor_of_another_list(self, http: httpx.AsyncClient) -> None:
        cursor = Keyset(Order, ListParams()).write(Place(None, 1, backwards=False))
        await refused(http, "cursor", "invalid_cursor", cursor=cursor)


HOSTILE_KEYS = [
    *[b"null", b"true", b"[]", b"{}", b"[" * 1000, b'"' + b"a" * 4000 + b'"', b"9" * 4000, b"1e999", b"-0", b"\xff"],
    *[b"0", b"1", b"-1", b"1.5", b"2147483648", b"9223372036854775808", b"1e400", b"NaN", b"Infinity", b"-Infinity"],
    *[b'""', b'"x"', b'"\\u0000"', b'"\\ud800"', b'"NaN"', b'"Infinity"', b'"1e999999"', b'"1e-999999"', b'"1_0"'],
    *[b'"0001-01-01 00:00:00+10:00"', b'"9999-12-31 23:00:00-10:00"', b'"2026-01-31 12:00:00"', b'"2026-01-31"'],
    *[b'"small"', b'"medium"', b'"RED"', b'"red"', b'"00000000-0000-0000-0000-000000000001"', b'"{}"'],
]
HOSTILE_IDS = [b"0", b"-1", b"9223372036854775807", b"9223372036854775808", b"1.0", b'"1"', b"true", b"null", b"[1]"]


class TestMadeUp:
    """The checksum keeps out mistakes. Who makes it fit gets a page or a refusal, and is believed no wrong type."""

    @pytest.mark.parametrize("field", get_args(SampleSortParam.model_fields["field"].annotation))
    async def test_it_is_a_page_or_a_refusal(self, http: httpx.AsyncClient, field: str) -> None:
        scope = Keyset(Sample, ListParams(sort=(SortParam(field=field),))).scope
        places = [b"[%s,1,false,false]" % key for key in HOSTILE_KEYS]
        places += [b"[null,%s,false,false]" % row_id for row_id in HOSTILE_IDS]
        places += [b"[null,1,0,false]", b"[null,1,false]", b"[null,1,false,false,1]", b"", b"[", b"1", b'{"id":1}']
        taken = []
        for place in places:
            answer = await http.get("/samples", params={"sort": field, "cursor": encoded(scope, place)})
            if answer.status_code == 200:
                taken.append(place)
            else:
                assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "cursor"])
        assert len(taken) < len(places) / 3

    @pytest.mark.parametrize(
        ("key", "status"),
        [("0E+999999", 422), ("0E-999999", 422), ("1E+999999", 422), ("1E+999", 200), ("1E-999", 200), ("-0", 200)],
    )
    async def test_decimals_have_bounds(self, http: httpx.AsyncClient, key: str, status: int) -> None:
        keyset = Keyset(Sample, ListParams(sort=(SortParam(field="price"),)))
        cursor = keyset.write(Place(key, 1, backwards=False))
        assert (await http.get("/samples", params={"sort": "price", "cursor": cursor})).status_code == status

    async def test_nothing_long_is_read(self, shop: AsyncSession) -> None:
        keyset = Keyset(Customer, ListParams(sort=(SortParam(field="email"),)))
        for length in (500, 10_000):
            cursor = keyset.write(Place("\U0001f600" * length, 1, backwards=False))
            with pytest.raises(ValueError, match="not a cursor") if length > 500 else nullcontext():
                keyset.read(cursor)


class TestPlaces:
    @pytest.mark.parametrize(
        ("type_", "key"),
        [
            (BIGINT, 0),
            (BIGINT, -(2**63)),
            (sa.Boolean(), True),
            (sa.Double(), 0.1 + 0.2),
            (sa.Double(), 5e-324),
            (sa.Double(), float("inf")),
            (sa.Numeric(8, 2), Decimal("10.50")),
            (sa.Numeric(8, 2), 10.503),
            (sa.Numeric(8, 2), 10),
            (sa.String(50), ""),
            (sa.String(50), '\u00e4"\\\U0001f600'),
            (UtcDateTime(), utcnow()),
            (sa.DateTime(), datetime(2026, 1, 31, 12)),  # noqa: DTZ001  as SQLite gives it
            (sa.Date(), utcnow().date()),
            (sa.Uuid(), UUID(int=1)),
            (sa.Uuid(as_uuid=False), str(UUID(int=1))),
        ],
    )
    def test_they_come_back_as_they_were(self, type_: TypeEngine[Any], key: Any) -> None:
        class Base(DeclarativeBase): ...

        class Row(Base):
            __tablename__ = "rows"
            id: Mapped[int] = mapped_column(BIGINT, primary_key=True)
            key: Mapped[Any] = mapped_column(type_, nullable=False)

        keyset = Keyset(Row, ListParams(sort=(SortParam(field="key"),)))  # type: ignore[arg-type]  # as in a package
        place = Place(key, 2**63 - 1, backwards=True, inclusive=True)
        assert keyset.read(keyset.write(place)) == place


class TestKeys:
    @pytest.mark.parametrize(
        "type_",
        [sa.String(500), sa.Enum("a", name="e"), sa.Double(), sa.Numeric(8, 2), sa.Date(), UtcDateTime(), BIGINT],
    )
    def test_what_is_read_as_it_compares(self, type_: TypeEngine[Any]) -> None:
        assert key_type(sa.Column("c", type_, nullable=False))
        assert not key_type(sa.Column("c", type_))

    @pytest.mark.parametrize(
        "type_",
        [
            sa.String(),
            sa.String(501),
            sa.Text(),
            sa.Text(10),
            sa.REAL(),
            sa.Float(24),
            sa.Float(asdecimal=True),
            sa.JSON(),
            sa.LargeBinary(),
            Shout(),
        ],
    )
    def test_what_is_not(self, type_: TypeEngine[Any]) -> None:
        assert not key_type(sa.Column("c", type_, nullable=False))


class TestInCode:
    async def test_two_sorts_are_a_mistake(self, shop: AsyncSession) -> None:
        params = CustomerListParams(sort=(SortParam(field="points"), SortParam(field="id")), cursor="")
        with pytest.raises(TypeError, match="takes one sort"):
            await customers.get_list(db=shop, params=params)

    async def test_a_sort_that_can_be_null_is_a_mistake(self, shop: AsyncSession) -> None:
        params = CustomerListParams(sort=(SortParam(field="name"),), cursor="")
        with pytest.raises(TypeError, match="cannot be sorted by"):
            await customers.get_list(db=shop, params=params)

    async def test_entities_are_read_where_no_schema_is_given(self, shop: AsyncSession) -> None:
        ann = await customers.create(db=shop, data={"email": "a"})
        result = await customers.get_list(db=shop, params=ListParams(cursor=""))
        assert (list(result.items), result.total, result.page) == ([ann], None, None)
        assert result.map(lambda row: row.email).cursors == result.cursors
