"""What a module contributes: its parts, what it opens with the application, its routes."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.core.configs import PROJECT_ROOT
from app.core.exceptions import ConfigError
from app.core.modules import Module, parts
from app.core.modules.registration import ModuleNotStarted, module_lifespans, register_modules
from tests.processes import environment

pytestmark = pytest.mark.once


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Module]]:
    """Make a module with these files that can be imported, under a name that nothing else has."""
    made = []

    def make(name: str, **files: str) -> Module:
        folder = tmp_path / f"house_{name}"
        folder.mkdir()
        for file, text in {"__init__": "", **files}.items():
            (folder / f"{file}.py").write_text(text)
        made.append(folder.name)
        return Module(folder.name, folder)

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] in made]:
        del sys.modules[name]


House = Callable[..., Module]


class TestParts:
    def test_they_are_imported_in_order(self) -> None:
        assert sys.modules["app.auth.models"] in list(parts("models"))
        assert list(parts("no_module_has_this")) == []

    def test_an_import_error_inside_is_no_missing_part(self, house: House) -> None:
        module = house("parts", models="import house_parts.nowhere")
        assert module.part("routers") is None
        with pytest.raises(ModuleNotFoundError, match=r"house_parts\.nowhere"):
            module.part("models")

    def test_an_import_error_of_the_root_neither(self, house: House) -> None:
        module = house("broken", __init__="import nowhere_at_all")
        with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
            module.part("models")


LIFESPAN = """
from contextlib import asynccontextmanager

@asynccontextmanager
async def lifespan(app):
    app.state.seen.append("{0} opens")
    {1}
    try:
        yield
    finally:
        app.state.seen.append("{0} closes")
"""


class TestLifespans:
    @pytest.fixture
    def started(self) -> FastAPI:
        application = FastAPI()
        application.state.seen = []
        return application

    async def test_they_open_in_order_and_close_in_the_reverse(self, house: House, started: FastAPI) -> None:
        modules = [
            house("one", lifespan=LIFESPAN.format("one", "")),
            house("none"),
            house("two", __init__=LIFESPAN.format("two", "")),
        ]
        async with module_lifespans(started, modules):
            assert started.state.seen == ["one opens", "two opens"]
        assert started.state.seen[2:] == ["two closes", "one closes"]

    async def test_one_that_fails_is_named_and_the_others_close(self, house: House, started: FastAPI) -> None:
        modules = [
            house("good", lifespan=LIFESPAN.format("good", "")),
            house("bad", lifespan=LIFESPAN.format("bad", "raise OSError('no such device')")),
        ]
        with pytest.raises(ModuleNotStarted, match="house_bad did not start: OSError: no such device") as caught:
            async with module_lifespans(started, modules):
                pytest.fail("it must not start")
        assert isinstance(caught.value.__cause__, OSError)
        assert started.state.seen == ["good opens", "bad opens", "good closes"]

    @pytest.mark.parametrize(
        "text", ["", "lifespan = 1", "async def lifespan(app):\n    yield", "async def lifespan(app): ..."]
    )
    async def test_what_is_none_is_refused(self, house: House, started: FastAPI, text: str) -> None:
        with pytest.raises(ConfigError, match=r"house_odd\.lifespan: lifespan must be an @asynccontextmanager"):
            async with module_lifespans(started, [house("odd", lifespan=text)]):
                pytest.fail("it must not start")


REGISTER = """
from fastapi import APIRouter
router = APIRouter()

@router.get("/hi")
async def hi() -> str:
    return "hi"

def register(app):
    return router
"""


class TestRegister:
    @pytest.mark.parametrize("file", ["routers", "__init__"])
    async def test_its_router_is_included_below_the_api(self, house: House, file: str) -> None:
        application = FastAPI()
        register_modules(application, [house("inn", **{file: REGISTER}), house("none")], "/api")
        assert application.openapi()["paths"]["/api/hi"]["get"]["tags"] == ["house_inn"]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("register = 1", "house_odd: register must be a function that takes the application"),
            ("def register(app):\n    return 1", r"house_odd\.routers:register gave back int"),
            ("async def register(app): ...", "gave back coroutine: it must be a plain function"),
            ("def register(app):\n    raise OSError('gone')", "register raised OSError: gone"),
            ("def register(app):\n    app.state.own = 2", "register changes the state of the whole service"),
        ],
    )
    async def test_what_is_none_is_refused(self, house: House, text: str, said: str) -> None:
        application = FastAPI()
        application.state.own = 1
        with pytest.raises(ConfigError, match=said):
            register_modules(application, [house("odd", routers=text)])


DROPPED = {
    "module.toml": 'depends_on = ["app.auth"]',
    "__init__.py": '"""Greets."""',
    "routers.py": """
from fastapi import APIRouter, FastAPI, Request

router_v1 = APIRouter(prefix="/hello", tags=["hello"])
router_v2 = APIRouter(prefix="/hello", tags=["hello"])


@router_v1.get("")
@router_v2.get("")
async def hello(request: Request) -> str:
    return str(request.app.state.greeting)


def register(app: FastAPI) -> APIRouter:
    app.add_api_route("/webhook", lambda: "itself")
    return registered


registered = APIRouter()


@registered.get("/hello/again")
async def again() -> str:
    return "again"
""",
    "lifespan.py": """
from contextlib import asynccontextmanager

from app.core.db import session_scope


@asynccontextmanager
async def lifespan(app):
    async with session_scope():  # the runtime is open by now
        app.state.greeting = "Hello"
    yield
""",
}

CALL = """
import asyncio
import httpx
from app.main import app


async def call():
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            paths = ("/api/v1/hello", "/api/v2/hello", "/api/v1/hello/again", "/webhook")
            return [await client.get(path) for path in paths]


ids = {path: item["get"]["operationId"] for path, item in app.openapi()["paths"].items() if "/hello" in path}
answers = asyncio.run(call())
print(*ids.values())
print(*((answer.status_code, answer.json()) for answer in answers if answer.status_code == 200))
"""


IDS = "hello_hello hello_hello_v2 hello_again"
ANSWERS = "(200, 'Hello') (200, 'Hello') (200, 'again') (200, 'itself')"


@pytest.mark.parametrize(
    ("chosen", "ids", "answers"),
    [("app.*", IDS, ANSWERS), ("app.auth,app.hello", IDS, ANSWERS), ("app.*,-app.hello", "", "")],
)
def test_a_folder_dropped_into_app_is_served(tmp_path: Path, chosen: str, ids: str, answers: str) -> None:
    shutil.copytree(PROJECT_ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in DROPPED.items():
        (tmp_path / "app" / "hello").mkdir(exist_ok=True)
        (tmp_path / "app" / "hello" / name).write_text(text)
    env = environment(tmp_path, ENVIRONMENT="testing", MODULES=chosen, PYTHONPATH=str(tmp_path))
    command = [sys.executable, "-W", "error", "-c", CALL]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [ids, answers]
