"""HEAD: what GET says, without a body (RFC 9110 9.3.2), wherever GET can be asked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.sse import EventSourceResponse
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from app.core.db.session import is_read_only
from app.core.deps import DBSession, cached
from tests.core.api.asgi import Exchange
from tests.core.api.conftest import Serve, make_app
from tests.core.api.server import serving
from tests.core.api.test_errors import check
from tests.core.log.capture import captured_log

router = APIRouter(prefix="/t")
asked: list[str] = []


@router.get("/unit")
async def unit(db: DBSession, request: Request) -> dict[str, Any]:
    await db.execute(text("SELECT 1"))
    return {"read_only": is_read_only(db)}


@router.get("/seat")
@cached(ttl=60, key_builder=lambda f: "head-seat")
async def seat() -> dict[str, str]:
    return {"seat": "x" * 2000}


@router.get("/rows")
async def rows() -> StreamingResponse:
    return StreamingResponse((f"{number}\n" for number in range(5)), media_type="text/csv")


@router.get("/endless", response_class=EventSourceResponse)
async def endless() -> AsyncIterator[int]:
    while True:
        yield 1
        await asyncio.sleep(0)


@router.get("/file")
async def file() -> FileResponse:
    return FileResponse(__file__)


@router.get("/refused")
async def refused() -> Response:
    return Response(status_code=418, content=b"short and stout")


@router.post("/only-post")
async def only_post() -> None: ...


@router.get("/both")
async def both() -> str:
    return "get"


@router.head("/both")
async def both_head(response: Response) -> None:
    response.headers["X-Of"] = "head"


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.method}")


PATHS = ["/t/unit", "/t/seat", "/t/rows", "/t/refused", "/health/live", "/docs", "/openapi.json", "/mount/hello"]
PATHS += ["/api/v1/users", "/mounted/t/unit", "/docs/swagger-ui.css", "/t/file", "/nowhere"]


def application(**settings: Any) -> FastAPI:
    app = make_app(router, **settings)
    app.mount("/mount", Starlette(routes=[Route("/hello", hello)]))
    inner = FastAPI()
    inner.include_router(router)
    app.mount("/mounted", inner)
    return app


async def ask(app: FastAPI, method: str, path: str, **headers: str) -> Exchange:
    exchange = Exchange(path, method=method, headers=headers)
    exchange.scope["query_string"] = b""
    await asyncio.wait_for(exchange.run(app), 60)
    return exchange


class TestHead:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("encoding", ["identity", "gzip"])
    async def test_as_get_but_for_the_body(self, db: Any, path: str, encoding: str) -> None:
        app = application()
        ids = {"X-Request-ID": "same", "X-Conversation-ID": "same", "Accept-Encoding": encoding}
        await ask(app, "GET", path, **ids)  # the next is an answer from the cache where there is one
        get, head = await ask(app, "GET", path, **ids), await ask(app, "HEAD", path, **ids)
        assert (head.status, head.headers) == (get.status, get.headers)
        assert (bool(get.body), head.body, head.complete) == (True, b"", True)

    async def test_its_unit_is_read_only(self, serve: Serve, db: Any) -> None:
        http = await serve(router)
        assert (await http.get("/t/unit")).json() == {"read_only": True}
        assert (await http.head("/t/unit")).headers["content-length"] == "18"

    async def test_an_endless_stream_ends(self, db: Any) -> None:
        head = await ask(application(), "HEAD", "/t/endless")
        assert (head.status, head.complete, head.body) == (200, True, b"")

    async def test_a_range_does_not_count(self, db: Any) -> None:
        head = await ask(application(), "HEAD", "/t/file", Range="bytes=0-3")
        assert head.status == 200

    async def test_a_route_of_its_own_wins(self, db: Any) -> None:
        app = application()
        assert (await ask(app, "HEAD", "/t/both")).headers["x-of"] == "head"
        assert "x-of" not in (await ask(app, "GET", "/t/both")).headers

    async def test_what_cannot_be_read_says_what_can_be_done(self, serve: Serve) -> None:
        http = await serve(router)
        answer = await http.head("/t/only-post")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        answer = await http.delete("/t/rows")
        check(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"

    async def test_the_log_says_head(self, db: Any) -> None:
        app = application()
        with captured_log() as lines:
            await ask(app, "HEAD", "/t/endless")
        line = lines.one("request")
        assert (line["method"], line["route"], line["status"]) == ("HEAD", "/t/endless", 200)

    async def test_the_document_lists_none(self, app: FastAPI) -> None:
        assert not any("head" in operations for operations in app.openapi()["paths"].values())

    @pytest.mark.parametrize("server", ["httptools", "h11"])
    async def test_over_the_wire_the_connection_goes_on(self, app: FastAPI, db: Any, server: Any) -> None:
        async with serving(server, router) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            for path in ("/t/seat", "/t/rows", "/t/endless", "/health/live"):
                head = await http.head(path, timeout=60)
                assert (head.status_code, head.content) == (200, b"")
            assert (await http.get("/t/both")).json() == "get"
