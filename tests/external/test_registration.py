"""How packages join the application, and what is said of those that cannot."""

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from app.core.exceptions import ConfigError
from tests.external.conftest import ROUTES, Package

pytestmark = pytest.mark.once

Register = Callable[..., None]


async def get(app: FastAPI, path: str) -> httpx.Response:
    """The answer to a GET."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        return await client.get(path)


class TestRegistered:
    @pytest.mark.parametrize(
        ("manifest", "path"),
        [("", "/guest/hello"), ('route_prefix = "/a/b"', "/a/b/hello"), ('route_prefix = ""', "/hello")],
    )
    async def test_its_router_is_mounted(
        self, package: Package, register: Register, host: FastAPI, manifest: str, path: str
    ) -> None:
        register(package(manifest=manifest))
        assert (await get(host, path)).json() == "hello"

    async def test_by_a_class(self, package: Package, register: Register, host: FastAPI) -> None:
        made = f"{ROUTES}\nclass App:\n    def register(self, app):\n        return router"
        register(package(manifest='entrypoint = "guest:App"', init=made))
        assert (await get(host, "/guest/hello")).json() == "hello"

    async def test_it_may_mount_its_routes_itself(self, package: Package, register: Register, host: FastAPI) -> None:
        itself = ROUTES.replace("return router", 'app.include_router(router, prefix="/where/it/likes")')
        register(package(init=itself))
        assert (await get(host, "/where/it/likes/hello")).json() == "hello"
        assert (await get(host, "/guest/hello")).status_code == 404

    def test_routes_without_a_tag_are_tagged_with_its_name(
        self, package: Package, register: Register, host: FastAPI
    ) -> None:
        tagged = ROUTES.replace("APIRouter()", 'APIRouter(tags=["visits"])')
        register(package("guest"), package("visitor", init=tagged))
        paths = host.openapi()["paths"]
        assert paths["/guest/hello"]["get"]["tags"] == ["guest"]
        assert paths["/visitor/hello"]["get"]["tags"] == ["visits"]

    async def test_the_routes_of_the_service_win(self, package: Package, register: Register, host: FastAPI) -> None:
        greedy = ROUTES.replace("/hello", "/house/{anything}")
        register(package(manifest='route_prefix = ""', init=greedy))
        assert (await get(host, "/house/rooms")).json() == 1
        assert (await get(host, "/house/doors")).json() == "hello"

    async def test_its_lifespan_runs_with_the_application(
        self, package: Package, register: Register, host: FastAPI
    ) -> None:
        opened = """
from contextlib import asynccontextmanager
from fastapi import APIRouter

@asynccontextmanager
async def lifespan(app):
    app.state.guest = "open"
    yield
    app.state.guest = "closed"

def register(app):
    return APIRouter(lifespan=lifespan)
"""
        register(package(init=opened))
        async with host.router.lifespan_context(host):
            assert host.state.guest == "open"
        assert host.state.guest == "closed"

    async def test_it_may_answer_for_errors_of_its_own(
        self, package: Package, register: Register, host: FastAPI
    ) -> None:
        own = """
from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

class Late(Exception): ...

router = APIRouter()

@router.get("/hello")
async def hello():
    raise Late

def register(app):
    app.state.guest = 1
    app.add_exception_handler(Late, lambda request, error: PlainTextResponse("late"))
    return router
"""
        register(package(init=own))
        assert (await get(host, "/guest/hello")).text == "late"


class TestRefused:
    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ("app.add_middleware(object)", "the middleware"),
            ("app.add_exception_handler(ValueError, print)", "the exception handlers"),
            ("app.exception_handlers.clear()", "the exception handlers"),
            ("app.dependency_overrides[register] = print", "the dependency overrides"),
            ("app.router.routes.insert(0, app.routes.pop())", "the routes"),
            ("app.routes.clear()", "the routes"),
            ("app.state.kit = None", "the state"),
        ],
    )
    def test_what_changes_the_whole_service(
        self, package: Package, register: Register, host: FastAPI, line: str, what: str
    ) -> None:
        host.state.kit = "the kit"
        with pytest.raises(ConfigError, match=f"entrypoint: guest:register changes {what} of the whole service: "):
            register(package(init=f"def register(app):\n    {line}"))

    @pytest.mark.parametrize(
        ("entrypoint", "init", "said"),
        [
            ("guest:register", "import nothing_like_it", "cannot be loaded: ModuleNotFoundError: No module named"),
            ("guest:register", "1 / 0", "guest:register cannot be loaded: ZeroDivisionError: division by zero"),
            ("guest:register", "raise SystemExit('no key')", "guest:register cannot be loaded: SystemExit: no key"),
            ("guest:register", "def registers(app): ...", "guest has no register; did you mean registers?"),
            ("guest:register", "register = 1", "is neither a function nor a class with a method register"),
            ("guest:App", "class App: ...", "is neither a function nor a class with a method register"),
            ("guest:App", "class App:\n def __init__(self, app): ...", "guest:App cannot be loaded: TypeError: "),
            ("guest:register", "def register(): ...", "guest:register raised TypeError: "),
            ("guest:register", "def register(app):\n raise OSError('one\\ntwo')", "raised OSError: one two"),
            ("guest:register", "def register(app): exit(2)", "guest:register raised SystemExit: 2"),
            ("guest:register", "def register(app): return 1", "gave back int: it must be a plain function that"),
            ("guest:register", "async def register(app): ...", "gave back coroutine: it must be a plain function"),
        ],
    )
    def test_an_entrypoint_that_is_none(
        self, package: Package, register: Register, entrypoint: str, init: str, said: str
    ) -> None:
        guest = package(manifest=f'entrypoint = "{entrypoint}"', init=init)
        with pytest.raises(ConfigError) as caught:
            register(guest)
        (line,) = str(caught.value).splitlines()
        assert "guest/module.toml: entrypoint: " in line
        assert said in line

    @pytest.mark.parametrize("prefix", ["/house", "/house/rooms"])
    def test_a_prefix_of_the_service(self, package: Package, register: Register, prefix: str) -> None:
        with pytest.raises(ConfigError, match=f"route_prefix: {prefix} is taken, /house/rooms is "):
            register(package(manifest=f'route_prefix = "{prefix}"'))

    def test_a_prefix_of_another_package(self, package: Package, register: Register) -> None:
        with pytest.raises(ConfigError, match=r"visitor/module\.toml: route_prefix: /guest is taken, /guest/hello is"):
            register(package("guest"), package("visitor", 'route_prefix = "/guest"'))

    def test_a_router_that_cannot_be_mounted_there(self, package: Package, register: Register) -> None:
        bare = ROUTES.replace('"/hello"', '""')
        with pytest.raises(ConfigError, match="route_prefix: the router cannot be mounted at '': "):
            register(package(manifest='route_prefix = ""', init=bare))
