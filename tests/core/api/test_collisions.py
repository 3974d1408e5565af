"""Routes that no request can reach."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from app.core.api.route_checks import route_collisions
from app.main import create_app


def endpoint(name: str) -> Callable[[], dict[str, str]]:
    """A path operation that says which one it is."""

    def answer() -> dict[str, str]:
        return {"took": name}

    answer.__qualname__ = name
    return answer


def app_of(*paths: str) -> FastAPI:
    """An application with these routes, each `METHOD /path` and its endpoint named after itself."""
    app = FastAPI(openapi_url=None)
    for line in paths:
        method, path = line.split()
        app.add_api_route(path, endpoint(line), methods=[method])
    return app


def found(app: Any) -> list[tuple[str, str, str]]:
    """Kind, hidden and hiding endpoint of each collision."""
    return [
        (one.kind, one.hidden.name.partition(":")[2], one.first.name.partition(":")[2])
        for one in route_collisions(app.routes)
    ]


@pytest.mark.parametrize(
    ("first", "hidden", "kind"),
    [
        ("GET /users", "GET /users", "duplicate"),
        ("GET /users/{id}", "GET /users/{user_id}", "duplicate"),
        ("GET /users/{id:int}", "GET /users/{number:int}", "duplicate"),
        ("GET /users/{id}", "GET /users/me", "shadowed"),
        ("GET /users/{id}", "GET /users/{id:int}", "shadowed"),
        ("GET /users/{id}", "GET /users/{id:uuid}", "shadowed"),
        ("GET /prices/{value:float}", "GET /prices/{value:int}", "shadowed"),
        ("GET /users/{id:int}", "GET /users/17", "shadowed"),
        ("GET /files/{path:path}", "GET /files/{name}/{version:int}", "shadowed"),
        ("GET /files/{path:path}", "GET /files/", "shadowed"),
        ("GET /{kind}/{id}", "GET /users/me", "shadowed"),
        ("GET /{kind}/{id}/{part}", "GET /users/{id:int}/mails", "shadowed"),
        ("GET /{name}.json", "GET /users.json", "shadowed"),
        ("GET /{name}", "GET /{name}.{ending}", "shadowed"),
    ],
)
class TestHidden:
    async def test_a_later_route_is_found(self, first: str, hidden: str, kind: str) -> None:
        assert found(app_of(first, hidden)) == [(kind, hidden, first)]

    async def test_no_request_reaches_it(self, first: str, hidden: str, kind: str) -> None:
        """What the check says is what the router does."""
        path = hidden.split()[1].replace("{id:uuid}", "6f1c0b52-93a5-4d2e-8c5b-1f0e7ad4c913")
        for parameter in ("{id:int}", "{user_id}", "{number:int}", "{value:int}", "{version:int}", "{id}", "{name}"):
            path = path.replace(parameter, "17")
        transport = httpx.ASGITransport(app=app_of(first, hidden))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            assert (await http.get(path.replace("{ending}", "txt"))).json() == {"took": first}


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("GET /users/me", "GET /users/{id}"),
        ("GET /users/{id:int}", "GET /users/me"),
        ("GET /users/{id:int}", "GET /users/{id}"),
        ("GET /users/{id:int}", "GET /users/{id:uuid}"),
        ("GET /users/{id:uuid}", "GET /users/{id:int}"),
        ("GET /prices/{value:int}", "GET /prices/{value:float}"),
        ("POST /users/{id}", "GET /users/me"),
        ("GET /users/{id}", "GET /users/"),
        ("GET /users/{id}", "GET /users/me/mails"),
        ("GET /users/{id}", "GET /users/{path:path}"),
        ("GET /{name}/list", "GET /users/{id}"),
        ("GET /users/{id}", "GET /{name}/list"),
        ("GET /{name}.json", "GET /{name}"),
        ("GET /a{name}", "GET /{name}"),
        ("GET /{name}", "GET /{name}/{braces-of-its-own}/{"),
    ],
)
def test_what_can_be_reached_is_not_listed(first: str, other: str) -> None:
    assert found(app_of(first, other)) == []


class TestRouters:
    def test_prefixes_of_included_routers_count(self) -> None:
        inner, outer, app = APIRouter(prefix="/users"), APIRouter(prefix="/v1"), FastAPI(openapi_url=None)
        inner.add_api_route("/{id}", endpoint("read"))
        outer.include_router(inner)
        app.include_router(outer, prefix="/api")
        app.add_api_route("/v1/users/me", endpoint("elsewhere"))
        app.add_api_route("/api/v1/users/me", endpoint("hidden"))
        (collision,) = route_collisions(app.routes)
        assert (collision.first.path, collision.hidden.path) == ("/api/v1/users/{id}", "/api/v1/users/me")
        assert found(app) == [("shadowed", "hidden", "read")]

    def test_a_router_included_twice(self) -> None:
        router, app = APIRouter(), FastAPI(openapi_url=None)
        router.add_api_route("/users", endpoint("list"))
        app.include_router(router)
        app.include_router(router)
        (collision,) = route_collisions(app.routes)
        assert (collision.kind, collision.fix) == ("duplicate", "include it once")

    def test_methods_that_are_taken_by_different_routes(self) -> None:
        app = app_of("GET /users/{id}", "PATCH /users/{id}")
        app.add_api_route("/users/me", endpoint("me"), methods=["GET", "PATCH", "DELETE"])
        taken = [(one.methods, one.first.name.partition(":")[2]) for one in route_collisions(app.routes)]
        assert taken == [(("GET",), "GET /users/{id}"), (("PATCH",), "PATCH /users/{id}")]

    def test_the_line_names_both_and_the_fix(self) -> None:
        (collision,) = route_collisions(app_of("GET /users/{id}", "GET /users/me").routes)
        assert str(collision) == (
            f"GET /users/me ({__name__}:GET /users/me) is never reached: /users/{{id}} ({__name__}:GET /users/{{id}}) "
            "comes first and takes its requests; "
            "register it before the other, or narrow the other with a converter such as {id:int}"
        )


class TestMounts:
    def test_a_mount_takes_everything_below_it(self) -> None:
        app = FastAPI(openapi_url=None)
        app.mount("/files", Starlette())
        app.add_api_route("/files/list", endpoint("hidden"))
        app.add_api_route("/files", endpoint("beside"))
        (collision,) = route_collisions(app.routes)
        assert collision.hidden.path == "/files/list"
        assert str(collision).endswith("include it before the mount of /files, or give it another path")

    def test_inside_of_a_mounted_application(self) -> None:
        app = FastAPI(openapi_url=None)
        app.mount("/old", app_of("GET /users/{id}", "GET /users/me"))
        (collision,) = route_collisions(app.routes)
        assert collision.hidden.path == "/old/users/me"

    def test_a_second_mount_of_one_path(self) -> None:
        app = Starlette(routes=[Mount("/files", Starlette()), Mount("/files", Starlette())])
        assert [kind for kind, _, _ in found(app)] == ["duplicate"]


class TestOtherKinds:
    def test_a_websocket_hides_websockets_alone(self) -> None:
        app = FastAPI(openapi_url=None)

        async def talk(websocket: WebSocket) -> None: ...

        app.add_api_websocket_route("/rooms/{id}", talk)
        app.add_api_route("/rooms/first", endpoint("page"))
        app.add_api_websocket_route("/rooms/last", talk)
        (collision,) = route_collisions(app.routes)
        assert (collision.hidden.path, collision.methods) == ("/rooms/last", ("WEBSOCKET",))

    def test_a_class_takes_every_method(self) -> None:
        class Page(HTTPEndpoint): ...

        routes = [Route("/{name}", Page), Route("/users", lambda _: PlainTextResponse(""), methods=["POST"])]
        assert [one.methods for one in route_collisions(routes)] == [("POST",)]

    def test_a_kind_of_parameter_of_one_s_own(self) -> None:
        class Language(Convertor[str]):
            regex = "[a-z]{2}"

        register_url_convertor("language", Language())
        assert found(app_of("GET /{text}", "GET /{to:language}")) != []
        assert found(app_of("GET /{language:language}", "GET /{to:language}")) != []
        assert found(app_of("GET /de", "GET /{to:language}")) == []
        assert found(app_of("GET /{to:language}", "GET /de")) != []
        assert found(app_of("GET /{to:language}", "GET /users")) == []


class TestApplication:
    def test_the_house_has_none(self) -> None:
        assert found(create_app(run_jobs=False)) == []

    async def test_the_start_warns(self, capfd: pytest.CaptureFixture[str]) -> None:
        app = create_app(run_jobs=False)
        router = APIRouter()
        router.add_api_route("/{kind}", endpoint("kinds"))
        router.add_api_route("/all", endpoint("all"))
        app.include_router(router, prefix="/things")
        async with app.router.lifespan_context(app):
            pass
        lines = [line for line in capfd.readouterr().out.splitlines() if "route collision" in line]
        assert len(lines) == 1
        assert f"GET /things/all ({__name__}:all) is never reached: /things/{{kind}} ({__name__}:kinds)" in lines[0]
