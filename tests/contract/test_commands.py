"""Commands and tools that work as everybody types them."""

import subprocess
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from typer.testing import CliRunner

from app.cli import app as kit_app
from app.cli.run import answers
from app.core.configs import PROJECT_ROOT
from tests.processes import BIN, environment, free_port, kit, started, wait_for
from tests.utils import PASSWORD

Make = Callable[..., list[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run `make`, and give back what it would have started."""
    for name in ("kit", "mypy", "ruff"):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\nprintf "%s" {name}; printf " [%s]" "$@"; echo\n')
        tool.chmod(0o755)

    def run(*arguments: str) -> list[str]:
        done = [f"--old-file=.venv/{name}" for name in (".runtime", ".development")]
        command = ["make", "--silent", *done, f"BIN={tmp_path}", *arguments]
        return subprocess.run(
            command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=True
        ).stdout.splitlines()

    return run


@pytest.mark.once
class TestMake:
    def test_lint_and_fmt(self, make: Make) -> None:
        assert make("lint") == ["ruff [check] [.]", "ruff [format] [--check] [.]", "mypy []"]
        assert make("fmt") == make("format") == ["ruff [check] [--fix] [.]", "ruff [format] [.]"]

    def test_migrate_writes_a_revision_where_it_is_told_what_for(self, make: Make) -> None:
        assert make("migrate") == make("upgrade") == ["kit [migrate]"]
        assert make("migrate", 'm=add "big" orders; $(x)') == [
            'kit [migrate] [revision] [--message] [add "big" orders; ]'
        ]


@pytest.mark.once
class TestKit:
    def test_version(self) -> None:
        project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for option in ("--version", "-V"):
            said = CliRunner().invoke(kit_app, [option]).stdout
            assert said == f"{project['name']} {project['version']}\n"

    def test_loud_and_quiet_at_once(self) -> None:
        assert CliRunner().invoke(kit_app, ["-v", "-q", "secrets"]).exit_code == 2

    def test_verbose_logs_what_is_done(self, tmp_path: Path) -> None:
        done = kit("--verbose", "migrate", VAR_DIR=str(tmp_path), LOG_LEVEL="ERROR")
        assert done.stdout == f"sqlite+aiosqlite:///{tmp_path}/app.db is up to date.\n"
        assert "Running upgrade " in done.stderr

    def test_quiet_leaves_out_what_was_done(self, tmp_path: Path) -> None:
        done = kit("--quiet", "migrate", VAR_DIR=str(tmp_path), LOG_LEVEL="DEBUG")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.once
class TestServers:
    """Beside `kit run`: without its migrations, first admin and guard of the head section."""

    def test_they_serve(self, tmp_path: Path) -> None:
        with ExitStack() as stack:
            ports = []
            for number, command in enumerate(["fastapi dev", "fastapi run", "uvicorn app.main:app"]):
                ports.append(free_port())
                tool, *arguments = command.split()
                line = (str(BIN / tool), *arguments, f"--port={ports[-1]}")
                env = environment(tmp_path / str(number), WORKER_IN_APP="false")
                stack.enter_context(started(*line, env=env, log=tmp_path / f"{number}.log"))
            wait_for(lambda: all(answers("127.0.0.1", port, "/health/live") for port in ports))


@pytest.mark.once
class TestTools:
    """`ruff check .` and `coverage run -m pytest` are what `make check` and `make coverage` start."""

    def test_mypy_without_arguments_is_mypy_with_a_dot(self) -> None:
        config = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
        assert config["files"] == ["."]

    def test_the_sample_of_settings_has_both_names(self) -> None:
        sample = (PROJECT_ROOT / ".sample.env").read_text(encoding="utf-8")
        assert (PROJECT_ROOT / ".env.example").read_text(encoding="utf-8") == sample


class TestTestClient:
    def test_it_walks_the_api(self, sync_client: TestClient) -> None:
        account = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}
        assert sync_client.post("/api/v1/auth/register", json=account).status_code == 201
        tokens = sync_client.post("/api/v1/auth/login", data={"username": "ann", "password": PASSWORD}).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert sync_client.get("/api/v1/profile", headers=headers).json()["data"]["username"] == "ann"

    def test_what_another_test_wrote_is_not_there(self, sync_client: TestClient) -> None:
        answer = sync_client.post("/api/v1/auth/login", data={"username": "ann", "password": PASSWORD})
        assert answer.status_code == 401

    def test_a_websocket(self, sync_client: TestClient) -> None:
        application = sync_client.app
        assert isinstance(application, FastAPI)

        @application.websocket("/echo")
        async def echo(socket: WebSocket) -> None:
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_json({"said": text})

        with sync_client.websocket_connect("/echo") as socket:
            for text in ("one", "two"):
                socket.send_text(text)
                assert socket.receive_json() == {"said": text}
        with pytest.raises(WebSocketDisconnect), sync_client.websocket_connect("/nowhere"):
            pass
