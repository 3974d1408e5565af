"""Which route a request took: found for any endpoint, remembered no longer than the application lives."""

import gc
import weakref
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.core.api.routes import route_of
from tests.core.api.conftest import Serve, make_app
from tests.core.log.capture import captured_log


@dataclass
class Mounted:
    """An application that cannot be hashed."""

    text: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.text.encode()})


async def needs_size(size: int) -> None: ...


async def needs_shade(shade: int) -> None: ...


async def shown() -> str:
    return "shown"


class TestRouteOf:
    def test_an_application_is_forgotten_with_its_last_user(self) -> None:
        apps = [FastAPI()]
        seen = weakref.ref(apps[0])
        assert route_of({"type": "http", "app": apps[0], "method": "GET", "path": "/nowhere"}) is None
        apps.clear()
        gc.collect()
        assert seen() is None

    def test_so_is_the_whole_service(self) -> None:
        """FastAPI remembers functions of routes: one that knows its application would keep it for ever."""
        apps = [make_app()]
        seen = weakref.ref(apps[0])
        apps.clear()
        gc.collect()
        assert seen() is None

    async def test_a_function_that_answers_two_routes_declares_the_names_of_each(self, serve: Serve, db: Any) -> None:
        router = APIRouter(prefix="/t")
        router.add_api_route("/sizes", shown, dependencies=[Depends(needs_size)])
        router.add_api_route("/shades", shown, dependencies=[Depends(needs_shade)])
        http = await serve(router)
        for path, name in (("sizes", "size"), ("shades", "shade")):
            answer = await http.get(f"/t/{path}")
            assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", name])

    async def test_a_mounted_application_may_be_unhashable(self, serve: Serve) -> None:
        router = APIRouter()
        router.mount("/unhashable", Mounted("here"))
        http = await serve(router)
        with captured_log() as lines:
            assert (await http.get("/unhashable/x")).text == "here"
        assert lines.one("request")["route"] == "/unhashable/{path}"

    async def test_a_mounted_application_of_starlette_reads_bodies(self, serve: Serve) -> None:
        async def echo(request: Request) -> PlainTextResponse:
            return PlainTextResponse(await request.body())

        router = APIRouter()
        router.mount("/other", Starlette(routes=[Route("/echo", echo, methods=["POST"])]))
        http = await serve(router)
        assert (await http.post("/other/echo", content=b"here")).text == "here"
