"""List queries over HTTP, down to the database: what is answered, and that all else is a 422."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi import Response as HTTPResponse
from pydantic import BaseModel as Schema
from pydantic import Field as PydanticField
from sqlalchemy import DateTime
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.api import ListParamsBuilder, PaginatedResponse
from app.core.api.errors import ErrorBoundary, add_error_handlers
from app.core.api.input_guard import InputGuard
from app.core.db import FilterParam, ListParams, SortOrder, SortParam
from app.core.db.column_values import type_value
from tests.core.db.models import Sample, SampleRepository

Field = Literal[
    "id",
    "text",
    "small",
    "number",
    "big",
    "flag",
    "price",
    "ratio",
    "born",
    "seen_at",
    "key",
    "plain_key",
    "color",
    "size",
]


class SampleSortParam(SortParam):
    """What samples can be sorted by."""

    field: Literal["id", "text", "small", "number", "big", "seen_at"]


class SampleFilterParam(FilterParam):
    """What samples can be filtered by."""

    field: Field


class SampleListParams(ListParams):
    """A query of samples."""

    model = Sample


class SampleRead(Schema):
    """What a list of them shows."""

    id: int


class LateListParams(ListParams):
    """The same without a model, written as the family of this kit writes it: the repository has the types."""

    sort: list[SampleSortParam] | None = PydanticField(None, description="never shown")
    filters: list[SampleFilterParam] | None = None


list_params = ListParamsBuilder(SampleListParams, SampleSortParam, SampleFilterParam)
late_params = ListParamsBuilder(LateListParams, SampleSortParam, SampleFilterParam)
SEEN = datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)


def make_app(db: AsyncSession) -> FastAPI:
    """A route that answers with the ids found."""
    app = FastAPI()
    samples = SampleRepository()

    @app.get("/samples")
    async def list_samples(params: Annotated[SampleListParams, Depends(list_params)]) -> list[int]:
        return [item.id for item in (await samples.get_list(db=db, params=params)).items]

    @app.get("/late")
    async def list_late(params: Annotated[LateListParams, Depends(late_params)]) -> list[int]:
        return [item.id for item in (await samples.get_list(db=db, params=params)).items]

    app.add_middleware(InputGuard, max_body_size=1024)
    app.add_middleware(ErrorBoundary)
    add_error_handlers(app)
    return app


@pytest.fixture
async def http(shop: AsyncSession) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that route; whatever it raises fails the test."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app(shop)), base_url="http://test") as client:
        yield client


@pytest.fixture
async def sample(shop: AsyncSession) -> Sample:
    """One sample among others."""
    shop.add(Sample(**Sample.VALUES, seen_at=SEEN))
    await shop.flush()
    other = {"text": "x", "small": 1, "number": 1, "big": 1, "flag": False, "price": Decimal(1), "ratio": 1.0}
    shop.add(Sample(**{**Sample.VALUES, **other, "born": date(2001, 1, 1), "size": "small"}, seen_at=datetime.now(UTC)))
    await shop.flush()
    return await shop.get_one(Sample, 1)


async def ask(http: httpx.AsyncClient, query: str) -> list[int]:
    """The ids that `query` finds, by both lists."""
    answer, late = [await http.get(f"/{path}?{query}") for path in ("samples", "late")]
    assert (answer.status_code, late.status_code) == (200, 200), answer.text + late.text
    found: list[int] = answer.json()
    assert late.json() == found
    return found


class TestFilters:
    @pytest.mark.parametrize(
        "text",
        [
            "id:1",
            "id:[1]",
            "id:[1,77,1]",
            r"text:a\,b:c",
            r"text:[x\]y,a\,b:c]",
            "small:-7",
            "small:[-7,-32768,32767]",
            "number:2000000000",
            "big:4611686018427387904",
            "flag:true",
            "price:10.5",
            "price:10.50",
            "ratio:0.25",
            "born:2000-02-29",
            "seen_at:2026-01-31T12:00:00.5Z",
            "seen_at:2026-01-31T17:00:00.5+05:00",
            "size:large",
            "size:[large]",
            r"id:1,text:a\,b:c,size:large,flag:true,small:-7",
            "color:blue,id:1",
            "key:00000000-0000-0000-0000-000000000001,id:1",
            "plain_key:00000000-0000-0000-0000-000000000002,id:1",
            "id__lt:2",
            "id__lte:1",
            "big__gt:1",
            "id__gte:1,id__lt:2",
            "id:[1,2],id__ne:2",
            "id__ne:[2,77]",
            "text__ne:x",
            "text__lt:b",
            "text__ilike:A,id__null:false",
            r"text__ilike:\,B:c",
            "small__lt:-6",
            "flag__ne:false",
            "price__gte:10.50",
            "price__gt:10.49",
            "ratio__lte:0.25",
            "born__lt:2000-03-01",
            "seen_at__lte:2026-01-31T12:00:00.5Z",
            "size__ne:[small]",
            "color__ne:red,id:1",
            "key__ne:00000000-0000-0000-0000-000000000009,id:1",
            "plain_key__ne:[00000000-0000-0000-0000-000000000009],id:1",
        ],
    )
    async def test_a_value_of_every_type_finds_its_row(
        self, http: httpx.AsyncClient, sample: Sample, text: str
    ) -> None:
        assert await ask(http, f"filters={quote(text)}") == [sample.id]

    @pytest.mark.parametrize(
        "text",
        [
            "id:-9223372036854775808",
            "id:9223372036854775807",
            "small:32767",
            "number:-2147483648",
            "price:999999.99",
            "ratio:" + "9" * 100,
            "born:0001-01-01",
            "born:9999-12-31",
            "seen_at:0001-01-01T00:00:00Z",
            "seen_at:9999-12-31T23:59:59.999999Z",
            "text:" + "long" * 1000,
            "text:' OR 1=1 --",
            "text:\U0001f600",
            "text:null",
            r"text:\\",
            r"text:\[",
            "text:a[b]",
            "text__ilike:" + "%" * 100,
            "text__null:true",
            "text__gt:y",
            "id__lt:-9223372036854775808",
            "id__gt:9223372036854775807",
            "id__ne:[1,2]",
            "price__gt:999999.99",
            "ratio__gt:" + "9" * 100,
            "born__gt:9999-12-31",
            "seen_at__lt:0001-01-01T00:00:00Z",
            "text:a,text__null:true",
            "id:1,id__ne:1",
            "size:small,id:1",
            "id:[" + ",".join(str(number) for number in range(1000, 1100)) + "]",
        ],
    )
    async def test_what_fits_the_column_and_no_row_finds_nothing(
        self, http: httpx.AsyncClient, sample: Sample, text: str
    ) -> None:
        assert await ask(http, f"filters={quote(text)}") == []


class TestSortsAndPages:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", [1, 2]),
            ("sort=id:desc", [2, 1]),
            ("sort=text", [1, 2]),
            ("sort=text:desc,id:asc", [2, 1]),
            ("sort=id,text,small,number,big", [1, 2]),
            ("page=1&per_page=1", [1]),
            ("page=2&per_page=1&sort=id:asc", [2]),
            ("page=1000000&per_page=100", []),
            ("sort=id%3Adesc&filters=id%3A%5B1%2C2%5D&page=1&per_page=3", [2, 1]),
            ("other=1&other=2&other=%20", [1, 2]),
        ],
    )
    async def test_it_is_answered(
        self, http: httpx.AsyncClient, sample: Sample, query: str, expected: list[int]
    ) -> None:
        assert await ask(http, query) == expected


MALFORMED = (
    [
        ("sort", text)
        for text in [
            "",
            ",",
            "id,",
            ",id",
            "id,,text",
            ":",
            ":desc",
            "id:",
            "id:DESC",
            "id:down",
            "id:desc:asc",
            "id: desc",
            " id",
            "ID",
            "id,id",
            "id:asc,id:desc",
            "unknown",
            "price",
            "extra",
            "__class__",
            "metadata",
            "id.desc",
            "-id",
            "id;text",
            "id,text,small,number,big,seen_at",
            "id%00",
            "id:desc%00",
            "%ED%A0%80",
            "%FF",
            "id%20--",
        ]
    ]
    + [
        ("filters", text)
        for text in [
            "",
            ",",
            ":",
            "id",
            "id:",
            ":1",
            "id:1,",
            ",id:1",
            "id:1,,text:a",
            "id:1,id:2",
            "id:1,id:[2]",
            "id:[]",
            "id:[,]",
            "id:[1,]",
            "id:[,1]",
            "id:[1",
            "id:[1]2",
            "id:[[1]]",
            "id:[1],",
            "id:[1];text:a",
            "id:1]",
            "text:[a",
            "text:%5C",
            "text:a%5C",
            "text:[a%5C]",
            "unknown:1",
            "extra:1",
            "__class__:1",
            "metadata:1",
            "ID:1",
            "id__eq:1",
            "id__:1",
            "__gte:1",
            "unknown__gte:1",
            "id__GTE:1",
            "id__gte__lt:1",
            "id__like:1",
            "id__ilike:1",
            "flag__gte:true",
            "size__lt:large",
            "color__ilike:r",
            "key__gt:00000000-0000-0000-0000-000000000001",
            "id__gte:[1]",
            "id__gte:[1,2]",
            "id__gte:one",
            "id__gte:",
            "id__gte:1,id__gte:2",
            "id__lt:9223372036854775808",
            "small__ne:32768",
            "small__ne:[1,32768]",
            "id__null:1",
            "id__null:TRUE",
            "id__null:null",
            "id__null:[true]",
            "text__ilike:[a]",
            "text__ilike:" + "a" * 101,
            "text__ilike:%00",
            "seen_at__lt:2026-01-31",
            "id:one",
            "id:1.0",
            "id:1e3",
            "id:%2B1",
            "id:%201",
            "id:1_0",
            "id:0x1",
            "id:--1",
            "id:%D9%A1",
            "id:true",
            "id:null",
            "id:9223372036854775808",
            "id:-9223372036854775809",
            "id:" + "9" * 5000,
            "big:9223372036854775808",
            "number:2147483648",
            "number:-2147483649",
            "small:32768",
            "small:[1,32768]",
            "flag:yes",
            "flag:1",
            "flag:TRUE",
            "price:ten",
            "price:nan",
            "price:inf",
            "price:1e5",
            "price:1.005",
            "price:1000000",
            "price:" + "9" * 200,
            "ratio:nan",
            "ratio:-inf",
            "ratio:" + "9" * 400,
            "ratio:.5",
            "born:2001-02-29",
            "born:20010228",
            "born:981331200",
            "born:2001-02-28T00:00:00",
            "born:10000-01-01",
            "seen_at:yesterday",
            "seen_at:2026-01-31",
            "seen_at:2026-01-31T12:00:00",
            "seen_at:1769860800",
            "seen_at:2026-13-31T12:00:00Z",
            "seen_at:2026-01-31T12:00:00+05:00",  # the plus is a space here
            "seen_at:0001-01-01T00:00:00%2B10:00",
            "seen_at:9999-12-31T23:00:00-10:00",
            "key:1",
            "key:zzzzzzzz-0000-0000-0000-000000000000",
            "plain_key:x",
            "color:green",
            "color:RED",
            "size:medium",
            "text:%00",
            "text:a%00b",
            "text:[a,%00]",
            "text:%ED%A0%80",
            "text:%FF%FE",
            "text:%C3",
            "id:[" + ",".join(["1"] * 101) + "]",
            "id:[" + ",".join(["1"] * 60) + "],small:[" + ",".join(["1"] * 41) + "]",
            "id:1,text:a,small:1,number:1,big:1,flag:true,price:1,ratio:1,born:2000-01-01,size:small,color:red",
            "id:1,id__ne:2,id__lt:3,id__lte:3,id__gt:0,id__gte:0,id__null:false,text:a,small:1,number:1,big:1",
            "id:[" + ",".join(["1"] * 60) + "],id__ne:[" + ",".join(["1"] * 41) + "]",
        ]
    ]
    + [
        (name, text)
        for name in ("page", "per_page")
        for text in ["", "0", "-1", "1.0", "1e1", "one", "%2B1", "%201", "1_0", "%00", "%D9%A1", "1000001", "9" * 5000]
    ]
)


class TestMalformed:
    @pytest.mark.parametrize(("name", "text"), MALFORMED)
    async def test_it_is_refused_and_the_parameter_named(
        self, http: httpx.AsyncClient, sample: Sample, name: str, text: str
    ) -> None:
        for path in ("samples", "late"):
            answer = await http.get(f"/{path}?{name}={text}")
            assert answer.status_code == 422
            fault = answer.json()["errors"][0]
            assert fault["loc"] == ["query", name]
            assert fault["msg"]
            assert fault["type"]

    @pytest.mark.parametrize("query", ["sort=id&sort=text", "filters=id:1&filters=flag:true", "page=1&page=1"])
    async def test_a_parameter_given_twice_is_refused(self, http: httpx.AsyncClient, query: str) -> None:
        answer = await http.get(f"/samples?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["query", query.partition("=")[0]]

    async def test_the_input_is_not_repeated(self, http: httpx.AsyncClient) -> None:
        for query in ("sort=zebra", "sort=id:zebra", "filters=zebra:1", "filters=id:zebra", "filters=key:zebra"):
            for path in ("samples", "late"):
                assert "zebra" not in (await http.get(f"/{path}?{query}")).text


class OddSortParam(SortParam):
    field: Literal["id", "gone", "extra", "text", "number"]


class OddFilterParam(FilterParam):
    field: Literal["id", "gone", "extra", "number"]


class OddListParams(ListParams):
    """Without a model, with bounds and defaults of its own, and fields that are none."""

    sort: list[OddSortParam] | None = PydanticField([OddSortParam(field="id", order=SortOrder.DESC)], max_length=2)
    filters: list[OddFilterParam] | None = None
    page: int = PydanticField(1, ge=1, le=3)
    per_page: int = PydanticField(1, ge=1, le=200, description="How many.")


class TestWithoutModel:
    @pytest.fixture
    async def odd(self, shop: AsyncSession, sample: Sample) -> AsyncIterator[httpx.AsyncClient]:
        app = make_app(shop)
        builder = ListParamsBuilder(OddListParams, OddSortParam, OddFilterParam)

        @app.get("/odd")
        async def odd(
            params: Annotated[OddListParams, Depends(builder)], request: Request, response: HTTPResponse
        ) -> PaginatedResponse[list[SampleRead]]:
            found = await SampleRepository().get_list(db=shop, params=params, into=SampleRead)
            return PaginatedResponse.of(found, request, response)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client

    async def test_defaults_and_bounds_are_those_of_the_class(self, odd: httpx.AsyncClient) -> None:
        assert (await odd.get("/odd")).json() == {
            "data": [{"id": 2}],
            "meta": {"pagination": {"total": 2, "page": 1, "per_page": 1}},
        }
        assert [item["id"] for item in (await odd.get("/odd?per_page=200&sort=id")).json()["data"]] == [1, 2]
        for query, name in (("page=4", "page"), ("per_page=201", "per_page"), ("sort=id,text,number", "sort")):
            answer = await odd.get(f"/odd?{query}")
            assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", name])

    @pytest.mark.parametrize(
        ("query", "name"),
        [
            ("sort=gone", "sort"),
            ("filters=gone:1", "filters"),
            ("filters=gone__null:true", "filters"),
            ("filters=extra:1", "filters"),
            ("filters=number:one", "filters"),
            ("filters=number:2147483648", "filters"),
            ("filters=number__ilike:1", "filters"),
            ("cursor=&sort=gone", "sort"),
            ("cursor=&sort=extra", "sort"),
            ("cursor=&sort=id,number", "sort"),
            ("cursor=x", "cursor"),
        ],
    )
    async def test_what_no_column_takes_is_refused(self, odd: httpx.AsyncClient, query: str, name: str) -> None:
        answer = await odd.get(f"/odd?{query}")
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", name])

    @pytest.mark.parametrize("sort", ["", "&sort=id", "&sort=number"])
    async def test_cursors_walk_it(self, odd: httpx.AsyncClient, sort: str) -> None:
        first = (await odd.get(f"/odd?cursor={sort}")).json()
        ahead = first["meta"]["pagination"]["next_cursor"]
        second = (await odd.get(f"/odd?cursor={ahead}{sort}")).json()
        ids = [item["id"] for page in (first, second) for item in page["data"]]
        assert ids == ([1, 2] if sort == "&sort=id" else [2, 1])
        assert second["meta"]["pagination"]["next_cursor"] is None
        for other in ("&sort=id:desc,id" if not sort else "", "&sort=number:desc"):
            if other != sort:
                assert (await odd.get(f"/odd?cursor={ahead}{other}")).status_code == 422

    async def test_values_made_in_code_are_taken(self, shop: AsyncSession, sample: Sample) -> None:
        for value in (1, "1", [1, "77"], (1,)):
            params = ListParams(filters=[FilterParam(field="id", value=value)])
            assert (await SampleRepository().get_list(db=shop, params=params)).total == 1
        assert (await SampleRepository().get_list(db=shop, params=ListParams(sort=None, filters=None))).total == 2

    def test_the_grammar_is_documented(self) -> None:
        operation: dict[str, Any] = make_app(AsyncSession()).openapi()["paths"]["/late"]["get"]
        described = {item["name"]: item.get("description", "") for item in operation["parameters"]}
        assert set(described) == {"sort", "filters", "page", "per_page", "cursor"}
        assert "`field:asc` or `field:desc`" in described["sort"]
        assert "`__ilike`" in described["filters"]
        assert "`size`" in described["filters"]


class TestDeclaration:
    def test_the_fields_are_documented(self) -> None:
        operation: dict[str, Any] = make_app(AsyncSession()).openapi()["paths"]["/samples"]["get"]
        parameters = {item["name"]: item for item in operation["parameters"]}
        assert set(parameters) == {"sort", "filters", "page", "per_page", "cursor"}
        assert "`id`, `text`, `small`, `number`, `big`, `seen_at`" in parameters["sort"]["description"]
        assert "`size`" in parameters["filters"]["description"]
        assert parameters["per_page"]["schema"]["maximum"] == 100
        assert parameters["page"]["schema"]["maximum"] == 1_000_000

    def test_the_lookups_are_documented_where_they_fit(self) -> None:
        operation: dict[str, Any] = make_app(AsyncSession()).openapi()["paths"]["/samples"]["get"]
        described = {item["name"]: item["description"] for item in operation["parameters"] if "description" in item}
        lines = dict(re.findall(r"- `__(\w+)` \(.*\)(.*)", described["filters"]))
        assert list(lines) == ["ne", "lt", "lte", "gt", "gte", "ilike", "null"]
        assert lines["ilike"] == ": `text`"
        assert lines["null"] == lines["ne"] == ""
        assert "`price`" in lines["lt"]
        assert "`flag`" not in lines["lt"]
        assert "`id`, `text`, `small`, `number`, `big`, `seen_at`" in described["cursor"]

    async def test_every_example_is_answered(self, http: httpx.AsyncClient, sample: Sample) -> None:
        operation: dict[str, Any] = make_app(AsyncSession()).openapi()["paths"]["/samples"]["get"]
        queries = [
            f"{item['name']}={quote(example)}"
            for item in operation["parameters"]
            for option in item["schema"].get("anyOf", [])
            for example in [*option.get("examples", []), *item["schema"].get("examples", [])]
        ]
        assert len(queries) >= 8
        for query in queries:
            await ask(http, query)

    def test_a_field_that_is_no_column_stops_the_start(self) -> None:
        class Sort(SortParam):
            field: Literal["id", "password"]

        with pytest.raises(TypeError, match="names no column: password"):
            ListParamsBuilder(SampleListParams, Sort, SampleFilterParam)

    def test_a_field_that_is_no_literal_stops_the_start(self) -> None:
        with pytest.raises(TypeError, match="must be a Literal"):
            ListParamsBuilder(SampleListParams, SortParam, SampleFilterParam)

    def test_a_column_without_single_values_cannot_be_filtered_by(self) -> None:
        class Filter(FilterParam):
            field: Literal["extra"]

        with pytest.raises(TypeError, match="no text is a single JSON"):
            ListParamsBuilder(SampleListParams, SampleSortParam, Filter)

    def test_a_column_of_naive_moments_cannot_be_filtered_by(self) -> None:
        with pytest.raises(TypeError, match="use UtcDateTime"):
            type_value("seen_at", DateTime())
