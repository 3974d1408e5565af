"""The envelope, and what a list says about itself."""

import re
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Query, Request
from fastapi import Response as HttpResponse
from pydantic import BaseModel

from app.core.api import PaginatedResponse, Response
from app.core.db import PaginatedResult
from tests.core.api.conftest import Serve


class Item(BaseModel):
    id: int


router = APIRouter(prefix="/t")


@router.get("/one")
async def one() -> Response[Item]:
    return Response(data=Item(id=1))


@router.get("/noted")
async def noted() -> Response[Item]:
    return Response(data=Item(id=1), meta={"note": "old"})


@router.get("/nothing")
async def nothing() -> Response[Item | None]:
    return Response(data=None)


@router.get("/items")
async def items(
    request: Request,
    response: HttpResponse,
    total: int,
    page: int = 1,
    per_page: Annotated[int, Query(ge=1)] = 10,
) -> PaginatedResponse[Item]:
    count = max(0, min(per_page, total - (page - 1) * per_page))
    result = PaginatedResult([Item(id=number) for number in range(count)], total, page, per_page)
    return PaginatedResponse[Item].of(result, request, response)


@pytest.fixture
async def http(serve: Serve) -> httpx.AsyncClient:
    return await serve(router)


def links(answer: httpx.Response) -> dict[str, str]:
    """The Link header as {rel: reference}."""
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', answer.headers["link"])
    return {rel: reference for reference, rel in found}


class TestResponse:
    async def test_data_without_meta_where_there_is_nothing_to_say(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/t/one")).json() == {"data": {"id": 1}}

    async def test_meta_where_there_is(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/t/noted")).json() == {"data": {"id": 1}, "meta": {"note": "old"}}

    async def test_data_may_be_null(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/t/nothing")).json() == {"data": None}


class TestPaginatedResponse:
    async def test_items_and_where_they_stand(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/t/items?total=25&page=2")
        assert answer.json()["data"] == [{"id": number} for number in range(10)]
        assert answer.json()["meta"] == {"pagination": {"total": 25, "page": 2, "per_page": 10}}
        assert answer.headers["x-total-count"] == "25"

    async def test_links_of_a_page_in_the_middle(self, http: httpx.AsyncClient) -> None:
        assert links(await http.get("/t/items?total=25&page=2")) == {
            "first": "/t/items?total=25&page=1",
            "prev": "/t/items?total=25&page=1",
            "next": "/t/items?total=25&page=3",
            "last": "/t/items?total=25&page=3",
        }

    @pytest.mark.parametrize(
        ("query", "rels"),
        [
            ("total=25", {"first": "1", "next": "2", "last": "3"}),
            ("total=25&page=3", {"first": "1", "prev": "2", "last": "3"}),
            ("total=0", {"first": "1", "last": "1"}),
            ("total=20&page=2", {"first": "1", "prev": "1", "last": "2"}),
            ("total=25&page=99", {"first": "1", "prev": "3", "last": "3"}),
        ],
    )
    async def test_links_at_the_edges(self, http: httpx.AsyncClient, query: str, rels: dict[str, str]) -> None:
        answer = await http.get(f"/t/items?{query}")
        assert {rel: httpx.URL(url).params["page"] for rel, url in links(answer).items()} == rels

    async def test_the_rest_of_the_query_stays_as_it_is(self, http: httpx.AsyncClient) -> None:
        asked = {"total": "25", "filters": 'name:a&b=c"><é', "empty": ""}
        answer = await http.get("/t/items", params={**asked, "page": "1"})
        assert dict(httpx.URL(links(answer)["next"]).params) == {**asked, "page": "2"}
        assert answer.headers["link"].isascii()

    async def test_links_that_clients_or_proxies_would_refuse_are_left_out(self, http: httpx.AsyncClient) -> None:
        assert len((await http.get(f"/t/items?total=25&page=2&a={'a' * 1900}")).headers["link"]) > 7600
        answer = await http.get(f"/t/items?total=25&page=2&a={'a' * 2100}")
        assert (answer.json()["meta"]["pagination"]["page"], "link" in answer.headers) == (2, False)

    async def test_a_false_host_has_no_effect(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/t/items?total=25", headers={"Host": "evil.test", "X-Forwarded-Host": "evil.test"})
        assert "evil" not in answer.headers["link"]
        assert all(reference.startswith("/t/items?") for reference in links(answer).values())
