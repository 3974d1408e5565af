"""`kit routes`."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from tests.planted import PlantedProject

pytestmark = pytest.mark.once

ROUTERS = """
from fastapi import APIRouter, Depends, FastAPI, WebSocket

from app.auth import ActiveUser, OptionalUser, requires_permission
from app.core.api import ConfigurableRateLimiter, public

router_v1 = APIRouter(prefix="/shop")


@router_v1.post("/orders", dependencies=[Depends(ConfigurableRateLimiter(times=7, seconds=60))])
async def order(user: ActiveUser) -> str:
    return user.username


@router_v1.get("/{item}", dependencies=[public])
async def read(item: str) -> str:
    return item


@router_v1.get("/all", dependencies=[public])
async def everything() -> str:
    return "all"


@router_v1.get("/welcome/first")
async def welcome(user: OptionalUser) -> str:
    # its words, such as `shop:read`, do not count
    return "welcome"


@router_v1.websocket("/news/first")
async def news(socket: WebSocket) -> None:
    await socket.close()


@router_v1.websocket("/orders", dependencies=[Depends(requires_permission("shop:read"))])
async def orders(socket: WebSocket) -> None:
    await socket.close()


def register(app: FastAPI) -> None:
    other = FastAPI()
    other.add_api_route("/there", everything)
    other.add_api_route("/ours", everything, dependencies=[Depends(requires_permission("shop:read"))])
    app.mount("/elsewhere", other)
"""
PERMISSIONS = """
from app.core.identity import Permission

permissions = [Permission("shop:read", "See the shop")]
"""
GUEST = """
from fastapi import APIRouter, Depends

def register(app):
    router = APIRouter()

    @router.get("/hello")
    async def hello() -> str:
        return "hello"

    @router.get("/name", dependencies=[Depends(app.state.kit.active_user)])
    async def name() -> str:
        return "name"

    return router
"""
UNSAID_ROUTES = (
    ("25, welcome", "GET /api/v1/shop/welcome/first"),
    ("31, news", "WEBSOCKET /api/v1/shop/news/first"),
)
MISPLACED = (
    "/api/v1/shop/orders (app.shop.routers:order): the limit of 7 in 60 s counts addresses instead of callers; "
    "put the dependency that identifies the caller before it, or give it key=client_address"
)
UNSAID = "app/shop/routers.py:{}: {} does not say who may call it\n    Fix: ask for the user or for a permission"
LINE = (
    "GET /api/v1/shop/all (app.shop.routers:everything) is never reached: "
    "/api/v1/shop/{item} (app.shop.routers:read) comes first and takes its requests; "
    "register it before the other, or narrow the other with a converter such as {id:int}"
)


def listed(*arguments: str) -> list[dict[str, Any]]:
    """The rows that `kit routes --json` prints, and nothing beside them."""
    result = CliRunner().invoke(app, ["routes", "--json", *arguments])
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


class TestRoutes:
    def test_who_may_call_and_how_often(self) -> None:
        rows = {(row["method"], row["path"]): row for row in listed()}
        login = rows["POST", "/api/v1/auth/login"]
        assert (login["access"], login["limits"]) == (["public"], ["5 in 60 s"])
        assert (login["module"], login["endpoint"]) == ("app.auth", "app.auth.routes.v1.auth:login")
        profile = rows["GET", "/api/v1/profile"]
        assert profile["access"] == ["authenticated"]
        assert rows["DELETE", "/api/v1/users/{user_id}"]["access"] == ["users:write"]
        assert rows["GET", "/api/v1/users/{user_id}"]["access"] == ["users:read"]
        assert rows["GET", "/health/live"]["module"] == "app.core"
        assert not any(row["collision"] for row in rows.values())
        assert all(row["access"] for row in rows.values())

    def test_only_some(self) -> None:
        rows = listed("--path", "/api/v1/users/{user_id}", "--method", "get")
        assert {row["method"] for row in rows} == {"GET"}
        assert {row["path"] for row in rows} > {"/api/v1/users/{user_id}", "/api/v1/users/{user_id}/roles"}
        assert all(row["path"].startswith("/api/v1/users/{user_id}") for row in rows)

    def test_for_people(self) -> None:
        result = CliRunner().invoke(app, ["routes", "--check", "--path", "/api/v1/users"])
        assert result.exit_code == 0
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[0] == ["METHOD", "PATH", "ACCESS", "LIMITS", "MODULE", "ENDPOINT"]
        assert lines[1] == ["GET", "/api/v1/users", "users:read", "app.auth", "list_users"]
        assert CliRunner().invoke(app, ["routes", "--path", "/nowhere"]).stdout == "No route fits.\n"


class TestFaults:
    @pytest.fixture
    def project(self, tmp_path: Path) -> PlantedProject:
        project = PlantedProject(tmp_path)
        shop = project.add_module("shop")
        (shop / "routers.py").write_text(ROUTERS)
        (shop / "permissions.py").write_text(PERMISSIONS)
        return project

    def test_they_are_shown_and_fail_the_check(self, project: PlantedProject) -> None:
        done = project.kit("routes", "--path", "/api/v1/shop")
        assert (done.returncode, done.stderr) == (0, "")
        table, _, faults = done.stdout.partition("\n\n")
        lines = table.splitlines()[1:]
        assert [line.rstrip().endswith("never reached") for line in lines] == [False, False, True, False, False, False]
        assert ["not said" in line for line in lines] == [False, False, False, True, True, False]
        collision, *unsaid, misplaced = faults.rstrip().split("\n\n")
        assert (collision, misplaced) == (f"{LINE}.", f"{MISPLACED}.")
        for fault, (place, route) in zip(unsaid, UNSAID_ROUTES, strict=True):
            assert fault.startswith(UNSAID.format(place, route))

        assert project.kit("routes", "--check", "--path", "/api/v1/shop/orders").returncode == 0
        done = project.kit("routes", "--json", "--check")
        assert (done.returncode, done.stderr) == (1, f"\n{faults}")
        rows = json.loads(done.stdout)
        assert [row["collision"] for row in rows if row["collision"]] == [LINE]
        access = {(row["method"], row["path"]): row["access"] for row in rows}
        assert access["WEBSOCKET", "/api/v1/shop/orders"] == ["shop:read"]
        assert access["*", "/elsewhere"] == access["GET", "/elsewhere/there"] == ["mounted"]
        assert access["GET", "/elsewhere/ours"] == ["shop:read"]

    def test_one_that_does_not_say_who_may_call_it(self, project: PlantedProject) -> None:
        for path, returncode in (("/api/v1/shop/welcome", 1), ("/api/v1/shop/news", 1), ("/elsewhere", 0)):
            assert project.kit("routes", "--check", "--path", path).returncode == returncode

    def test_a_permission_that_no_module_declares(self, project: PlantedProject) -> None:
        (project.folder / "app" / "shop" / "permissions.py").unlink()
        for path in ("/api/v1/shop/orders", "/"):
            done = project.kit("routes", "--check", "--path", path)
            assert done.returncode == 1
            assert "No module declares the permission shop:read, which a policy asks for\n" in done.stderr

    def test_packages_cannot_say(self, project: PlantedProject) -> None:
        guest = project.folder / "guest"
        guest.mkdir()
        (guest / "__init__.py").write_text(GUEST)
        (guest / "module.toml").write_text('entrypoint = "guest:register"\n')
        done = project.kit("routes", "--check", "--path", "/guest", MODULES="app.*,guest")
        assert done.returncode == 0, done.stderr
        assert [line.split()[1:3] for line in done.stdout.splitlines()[1:]] == [
            ["/guest/hello", "package"],
            ["/guest/name", "authenticated"],
        ]
