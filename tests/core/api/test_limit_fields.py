"""What an answer says of the limits it counted against."""

from collections.abc import Callable
from uuid import uuid4

import httpx
from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse

from app.core.api import ConfigurableRateLimiter
from tests.core.api.conftest import Serve
from tests.core.api.test_errors import check


def limited(path: str, *limits: ConfigurableRateLimiter, endpoint: Callable[..., object]) -> APIRouter:
    """A router whose one route has the limits; nothing else has its name, so no other run counts."""
    router = APIRouter(prefix="/t")
    endpoint.__qualname__ = f"endpoint-{uuid4()}"
    router.get(path, dependencies=[Depends(limit) for limit in limits])(endpoint)
    return router


async def fields(http: httpx.AsyncClient, path: str = "/t/x") -> tuple[str | None, str | None]:
    headers = (await http.get(path)).headers
    return headers.get("ratelimit-policy"), headers.get("ratelimit")


class TestFields:
    async def test_they_count_down_to_the_refusal(self, serve: Serve) -> None:
        async def browse() -> str:
            return "served"

        http = await serve(
            limited("/x", ConfigurableRateLimiter(times=2, seconds=60), endpoint=browse), RATE_LIMITER_ENABLED=True
        )
        got = [await fields(http) for _ in range(2)]
        assert got == [('"browse";q=2;w=60', '"browse";r=1;t=60'), ('"browse";q=2;w=60', '"browse";r=0;t=60')]
        refusal = await http.get("/t/x")
        check(refusal, 429, "rate_limited")
        assert refusal.headers["ratelimit"] == f'"browse";r=0;t={refusal.headers["retry-after"]}'

    async def test_every_answer_of_a_limited_route_has_them(self, serve: Serve) -> None:
        async def plain(number: int) -> PlainTextResponse:
            return PlainTextResponse(str(1 // number))

        limit = ConfigurableRateLimiter(times=9)
        http = await serve(limited("/x", limit, endpoint=plain), RATE_LIMITER_ENABLED=True)
        answers = [await http.get(f"/t/x?number={number}") for number in ("1", "0", "one")]
        assert [answer.status_code for answer in answers] == [200, 500, 422]
        # a fault in the query is found together with the limit: the call counts
        assert [answer.headers["ratelimit"] for answer in answers] == [f'"plain";r={left};t=60' for left in (8, 7, 6)]

    async def test_two_limits_are_told_apart(self, serve: Serve) -> None:
        async def search() -> None: ...

        limits = ConfigurableRateLimiter(times=3, seconds=1), ConfigurableRateLimiter(times=50, seconds=3600)
        http = await serve(limited("/x", *limits, endpoint=search), RATE_LIMITER_ENABLED=True)
        assert await fields(http) == (
            '"search";q=3;w=1, "search-2";q=50;w=3600',
            '"search";r=2;t=1, "search-2";r=49;t=3600',
        )

    async def test_a_name_is_fit_for_a_header(self, serve: Serve) -> None:
        async def search() -> None: ...

        limit = ConfigurableRateLimiter(times=3, seconds=60, name=f'"süß";\r\n{uuid4()}')
        http = await serve(limited("/x", limit, endpoint=search), RATE_LIMITER_ENABLED=True)
        policy, _ = await fields(http)
        assert policy is not None
        assert policy.startswith('"s')
        assert policy.endswith('";q=3;w=60')
        assert policy.count('"') == 2

    async def test_they_never_tell_who_is_meant(self, serve: Serve) -> None:
        async def tenant(request: Request) -> str:
            return "a-secret-tenant"

        async def browse() -> None: ...

        limit = ConfigurableRateLimiter(times=3, key=tenant)
        answer = await (await serve(limited("/x", limit, endpoint=browse), RATE_LIMITER_ENABLED=True)).get("/t/x")
        assert "secret" not in str(answer.headers)

    async def test_a_route_without_limits_has_none(self, serve: Serve) -> None:
        http = await serve(RATE_LIMITER_ENABLED=True)
        assert await fields(http, "/health/live") == (None, None)
