"""Without this module the others go on: left out by a setting, or its folder deleted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.configs import PROJECT_ROOT
from tests.planted import PlantedProject
from tests.processes import environment

pytestmark = pytest.mark.once

# The core path of auth, in a process that never imports what is left out.
PATH = """
import asyncio, sys
import httpx
from app.core.migrations.migrate import Migrations
from app.core.configs import get_settings
from app.core.runtime import runtime

Migrations(get_settings().database_url).upgrade()

from app.main import app

async def main():
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        account = {"email": "ann@example.com", "username": "ann", "password": "a long enough password"}
        assert (await http.post("/api/v1/auth/register", json=account)).status_code == 201
        wrong = {"username": "ann", "password": "wrong"}
        assert (await http.post("/api/v1/auth/login", data=wrong)).status_code == 401
        tokens = (await http.post("/api/v1/auth/login", data={**account, "username": "ann"})).json()
        http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        assert (await http.get("/api/v1/profile")).json()["data"]["username"] == "ann"
        assert (await http.post("/api/v1/auth/logout")).status_code == 204
        await runtime().runner.drain()
        assert (await http.get("/api/v1/audit/events")).status_code == 404

asyncio.run(main())
assert not [name for name in sys.modules if name.startswith("app.audit")]

from tools.boundaries import boundary_violations

assert not boundary_violations()
"""


def walk(folder: Path, environment: dict[str, str]) -> None:
    """Walk the path with the application in `folder`."""
    command = [sys.executable, "-W", "error", "-c", PATH]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


def test_left_out_by_the_setting(tmp_path: Path) -> None:
    walk(PROJECT_ROOT, environment(tmp_path, MODULES="app.auth"))


def test_its_folder_deleted(tmp_path: Path) -> None:
    project = PlantedProject(tmp_path)
    shutil.rmtree(tmp_path / "app" / "audit")

    walk(tmp_path, project.environment())
