"""The other `kit` commands, and what holds for all of them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import typer.main
from sqlalchemy.engine import URL

from app.cli import app
from app.core.configs import PROJECT_ROOT
from tests.conftest import backend
from tests.processes import kit, served_settings, starts_in_production


class TestMigrate:
    def test_it_brings_the_database_up_to_date_and_can_be_repeated(self, tmp_path: Path) -> None:
        for _ in range(2):
            done = kit("migrate", VAR_DIR=str(tmp_path))
            assert done.returncode == 0, done.stderr
            assert done.stdout == f"sqlite+aiosqlite:///{tmp_path}/app.db is up to date.\n"

    def test_it_hides_the_password(self, tmp_path: Path) -> None:
        url = f"sqlite+aiosqlite://ann:hidden@/{tmp_path}/app.db"
        done = kit("migrate", DATABASE_URL=url, VAR_DIR=str(tmp_path))
        assert "hidden" not in done.stdout + done.stderr


class TestArguments:
    def test_bytes_that_are_no_utf_8_are_refused_in_one_line(self) -> None:
        command: list[str | bytes] = [sys.executable, "-m", "app.cli", "jobs", "list", "--queue", b"\xff"]
        done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=240, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "The arguments must be UTF-8.\n")


class TestReady:
    def test_a_database_without_tables_is_not_ready(self, tmp_path: Path) -> None:
        done = kit("ready", VAR_DIR=str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.endswith("Not ready: migrations. Run `kit migrate`.\n")

    def test_without_redis_it_is_ready_and_degraded(self, tmp_path: Path, template: URL) -> None:
        url = template.render_as_string(hide_password=False)
        done = kit("ready", VAR_DIR=str(tmp_path), DATABASE_URL=url)
        assert (done.returncode, done.stdout) == (0, "Everything answers.\n")
        done = kit("ready", VAR_DIR=str(tmp_path), DATABASE_URL=url, REDIS_URL="redis://127.0.0.1:1/0")
        assert (done.returncode, done.stdout) == (0, "Ready, but degraded: redis.\n")
        assert "Traceback" not in done.stderr

    def test_a_database_that_does_not_answer_is_named(self, tmp_path: Path) -> None:
        done = kit("ready", VAR_DIR=str(tmp_path), DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.endswith("Not ready: database, migrations.\n")
        assert "Traceback" not in done.stderr

    def test_a_folder_that_cannot_be_had_is_named_in_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        folder = tmp_path / "file" / "var"
        done = kit("ready", VAR_DIR=str(folder))
        said = f"The folder for data {folder} cannot be used: Not a directory. Check VAR_DIR.\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)

    @starts_in_production
    @pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="SQLite needs a file")
    def test_a_service_that_keeps_nothing_in_files_needs_no_folder(self, tmp_path: Path) -> None:
        """As on a read-only file system."""
        (tmp_path / "file").touch()
        with served_settings() as stores:
            settings = stores | {
                "ENVIRONMENT": "production",
                "VAR_DIR": str(tmp_path / "file" / "var"),
                "FRONTEND_URL": "https://shop.example",
                "SECRET_KEY": token_hex(),
                "JWT_SECRET_KEY": token_hex(),
                "FIRST_USER_PASSWORD": token_hex(),
                "SMTP_HOST": "127.0.0.1",
            }
            for command in ("migrate", "ready"):
                done = kit(command, **settings)
                assert done.returncode == 0, done.stderr


class TestOpenapi:
    def test_the_committed_document_is_what_the_code_says(self, tmp_path: Path) -> None:
        done = kit("openapi", "--check", VAR_DIR=str(tmp_path), PROJECT_NAME="")
        assert done.returncode == 0, done.stderr

    def test_a_difference_is_noticed(self, tmp_path: Path) -> None:
        done = kit("openapi", "--check", VAR_DIR=str(tmp_path), PROJECT_NAME="Another")
        assert done.returncode == 1
        assert done.stderr == (
            "docs/openapi.json is not what the code says. If the change is meant: .venv/bin/kit openapi\n"
        )

    def test_writing_again_changes_nothing(self, tmp_path: Path) -> None:
        path = PROJECT_ROOT / "docs" / "openapi.json"
        before = path.read_bytes()
        assert kit("openapi", VAR_DIR=str(tmp_path)).returncode == 0
        assert path.read_bytes() == before


class TestDemo:
    def test_it_walks_on_data_of_its_own(self) -> None:
        """The database that is set here would not answer: the demo does not ask it."""
        done = kit("demo", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("Every call of the README works.\n")
        assert "\x1b" not in done.stdout


def test_without_a_command_they_are_listed() -> None:
    done = kit()
    assert all(name in done.stdout + done.stderr for name in ("run", "migrate", "ready", "demo", "openapi"))


def paths(command: Any, path: str = "kit") -> Iterator[str]:
    """Every command below `command`, as one types it."""
    if not hasattr(command, "list_commands"):
        yield path
        return
    context = typer.Context(command)
    for name in command.list_commands(context):
        yield from paths(command.get_command(context, name), f"{path} {name}")


def test_every_command_is_described() -> None:
    page = (PROJECT_ROOT / "docs" / "commands.md").read_text()
    found = list(paths(typer.main.get_command(app)))
    assert {"kit jobs list", "kit users create"} <= set(found)  # of kit itself, and of a module
    assert [path for path in found if path not in page] == []


def test_naming_them_loads_no_framework() -> None:
    code = "import sys, app.cli; print(sorted({'fastapi', 'sqlalchemy', 'pydantic', 'taskiq'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
