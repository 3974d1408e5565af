"""Which route a request took: found for any endpoint, remembered no longer than the application lives."""

import gc
import weakref
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.core.api import public
from app.core.api.routes import listed_routes, route_of
from app.core.identity import AUTHENTICATED, admits
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


@admits(AUTHENTICATED)
async def caller() -> None: ...


async def scoped(scopes: SecurityScopes, user: Annotated[None, Depends(caller)]) -> None: ...


@admits("sizes:write")
async def can_write_sizes(user: Annotated[None, Depends(caller)]) -> None: ...


class TestAccess:
    @pytest.mark.parametrize(
        ("dependencies", "access"),
        [
            ([], ()),
            ([Depends(needs_size)], ()),
            ([public], ("public",)),
            ([public, Depends(caller)], ("authenticated",)),
            ([public, Depends(can_write_sizes)], ("sizes:write",)),
            ([Depends(can_write_sizes), Depends(admits("role:tailor")(needs_shade))], ("role:tailor", "sizes:write")),
            ([Security(scoped, scopes=["sizes:read"])], ("sizes:read",)),
            ([Security(caller, scopes=["sizes:read"])], ("authenticated",)),  # nobody reads that scope
        ],
    )
    def test_it_is_the_strictest_that_a_dependency_asks_for(
        self, dependencies: list[Any], access: tuple[str, ...]
    ) -> None:
        around = APIRouter(prefix="/around", dependencies=dependencies)
        around.add_api_route("/inside", shown)
        around.add_api_websocket_route("/socket", shown)
        app = FastAPI(openapi_url=None)
        app.include_router(around)
        app.add_api_route("/one", shown, dependencies=dependencies)
        app.include_router(APIRouter(routes=[APIRoute("/other", shown)]), dependencies=dependencies)
        assert {route.access for route in listed_routes(app.routes)} == {access}

    def test_a_mark_of_another_kind_says_nothing(self) -> None:
        app = FastAPI(openapi_url=None)
        app.add_api_route("/stub", shown, dependencies=[Depends(Stub())])
        app.mount("/mounted", Mounted("here"))
        assert [route.access for route in listed_routes(app.routes)] == [(), ()]


class Stub:
    """Has every attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__kit"):
            return lambda: None
        raise AttributeError(name)

    async def __call__(self) -> None: ...


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
