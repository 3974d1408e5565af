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
from fastapi import APIRouter, Depends

from app.auth import ActiveUser
from app.core.api import ConfigurableRateLimiter

router_v1 = APIRouter(prefix="/shop")


@router_v1.post("/orders", dependencies=[Depends(ConfigurableRateLimiter(times=7, seconds=60))])
async def order(user: ActiveUser) -> str:
    return user.username


@router_v1.get("/{item}")
async def read(item: str) -> str:
    return item


@router_v1.get("/all")
async def everything() -> str:
    return "all"
"""
MISPLACED = (
    "/api/v1/shop/orders (app.shop.routers:order): the limit of 7 in 60 s counts addresses instead of callers; "
    "put the dependency that identifies the caller before it, or give it key=client_address"
)
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
        assert (login["auth"], login["limits"], login["permissions"]) == (False, ["5 in 60 s"], [])
        assert (login["module"], login["endpoint"]) == ("app.auth", "app.auth.routes.v1.auth:login")
        profile = rows["GET", "/api/v1/profile"]
        assert (profile["auth"], profile["permissions"]) == (True, [])
        assert rows["DELETE", "/api/v1/users/{user_id}"]["permissions"] == ["users:write"]
        assert rows["GET", "/health/live"]["module"] == "app.core"
        assert not any(row["collision"] for row in rows.values())

    def test_only_some(self) -> None:
        rows = listed("--path", "/api/v1/users", "--method", "get")
        assert [(row["method"], row["path"]) for row in rows] == [
            ("GET", "/api/v1/users"),
            ("GET", "/api/v1/users/me"),
            ("GET", "/api/v1/users/{user_id}"),
        ]

    def test_for_people(self) -> None:
        result = CliRunner().invoke(app, ["routes", "--check", "--path", "/api/v1/users"])
        assert result.exit_code == 0
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[0] == ["METHOD", "PATH", "ACCESS", "LIMITS", "MODULE", "ENDPOINT"]
        assert lines[1] == ["GET", "/api/v1/users", "users:read", "app.auth", "list_users"]
        assert CliRunner().invoke(app, ["routes", "--path", "/nowhere"]).stdout == "No route fits.\n"


class TestFaults:
    def test_they_are_shown_and_unreached_routes_fail_the_check(self, tmp_path: Path) -> None:
        project = PlantedProject(tmp_path)
        (project.add_module("shop") / "routers.py").write_text(ROUTERS)
        done = project.kit("routes", "--path", "/api/v1/shop")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert [line.rstrip().endswith("never reached") for line in lines[1:4]] == [False, False, True]
        assert [line for line in lines[4:] if line] == [f"{LINE}.", f"{MISPLACED}."]
        assert project.kit("routes", "--check", "--path", "/api/v1/shop/orders").returncode == 0
        done = project.kit("routes", "--json", "--check")
        assert done.returncode == 1
        assert [row["collision"] for row in json.loads(done.stdout) if row["collision"]] == [LINE]
