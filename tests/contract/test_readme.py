"""The README is true: its calls, its module, its commands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

from app.cli import app as kit
from app.core.configs import PROJECT_ROOT
from tests.conftest import backend
from tests.processes import BIN, environment, served_settings, started
from tools.demo import pages, walk

README = PROJECT_ROOT / "README.md"
PAGES = [README, *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
PASSWORD = {"FIRST_USER_PASSWORD": "only for this walk", "ADMIN_PASSWORD": "only for this walk"}

_FILE_BLOCK = re.compile(r"^```(?:python|toml)\n# (?P<path>\S+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.usefixtures("template")


class TestCalls:
    def test_every_one_works(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with served_settings() as settings:
            refusal = walk(pages(PROJECT_ROOT), tmp_path, environment(tmp_path, **settings, **PASSWORD))

        shown = capfd.readouterr().out
        assert refusal is None, shown
        assert shown.count("curl ") >= 12
        assert '"pagination":{"total":2,"page":1,"per_page":3}' in shown
        assert '"name":"clerk"' in shown

    @pytest.mark.skipif("served" not in backend.name, reason="a worker of its own needs Redis")
    def test_every_one_works_with_a_worker_of_its_own(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with served_settings() as settings:
            env = environment(tmp_path, **settings, **PASSWORD, WORKER_IN_APP="false")
            with started(str(BIN / "kit"), "worker", env=env, log=tmp_path / "worker.log"):
                refusal = walk(pages(PROJECT_ROOT), tmp_path, env)

        assert refusal is None, capfd.readouterr().out
        assert "job completed" in (tmp_path / "worker.log").read_text()

    def test_a_call_that_fails_is_noticed(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        page = tmp_path / "page.md"
        page.write_text("```bash\ncurl http://127.0.0.1:8000/nowhere\n```\n```bash\necho never\n```\n")

        refusal = walk([page], tmp_path, environment(tmp_path))

        assert refusal == "A call failed with exit code 22."
        assert "never" not in capfd.readouterr().out

    def test_a_server_that_does_not_start_is_noticed(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        env = environment(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/file/app.db")

        refusal = walk(pages(PROJECT_ROOT), tmp_path, env)

        assert refusal is not None
        assert refusal.startswith("The server did not start:\n")
        assert "\nThe database sqlite+aiosqlite:///" in refusal


ROOMS = (PROJECT_ROOT / "docs" / "rooms.md").read_text(encoding="utf-8")
_QUESTION = re.compile(r"^\| (?P<question>[^|]+?) \| (?P<open>[^|]*`[^|]+) \| (?P<read>\[[^|]+) \|$", re.MULTILINE)
_PATH = re.compile(r"`(\.?[\w-]+(?:/[\w.-]+)+/?|\.?\w[\w.-]*\.(?:md|toml|yaml|env)|Dockerfile|Makefile|LICENSE)`")


@pytest.mark.once
class TestRooms:
    def test_every_path_is_there(self) -> None:
        missing = [path for path in _PATH.findall(ROOMS) if not (PROJECT_ROOT / path).exists()]
        assert missing == []

    def test_forty_questions_have_a_file_to_open(self) -> None:
        questions = list(_QUESTION.finditer(ROOMS))
        assert len(questions) >= 40
        assert all(_PATH.search(found["open"]) for found in questions)

    def test_the_readme_leads_there_from_its_first_screen(self) -> None:
        first_screen = README.read_text(encoding="utf-8").splitlines()[:25]
        assert any("(docs/rooms.md)" in line for line in first_screen)


SOUND = "tests/architecture/test_boundaries.py::test_the_house_has_no_breach"


@pytest.mark.once
class TestModule:
    """What "Add a route" says, done in a copy of the checkout."""

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        copy = tmp_path / "copy"
        for folder in ("app", "migrations", "tests", "tools", "docs"):
            shutil.copytree(PROJECT_ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("alembic.ini", "pyproject.toml", ".test.env", ".sample.env", "README.md"):
            shutil.copy(PROJECT_ROOT / name, copy)
        for found in _FILE_BLOCK.finditer(README.read_text(encoding="utf-8")):
            path = copy / found["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found["text"].lstrip("\n"))
        return copy

    def test_it_is_served_tested_and_within_the_boundaries(self, checkout: Path) -> None:
        assert (checkout / "app" / "hello" / "routers.py").exists()
        for command in (
            [str(BIN / "ruff"), "check", "app/hello", "tests/hello"],
            [str(BIN / "ruff"), "format", "--check", "app/hello", "tests/hello"],
            [sys.executable, "-m", "pytest", "-q", "tests/hello", SOUND],
        ):
            done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def commands_of_kit() -> list[str]:
    """The names of all commands, those of developers too."""
    group = get_command(kit)
    assert isinstance(group, TyperGroup)
    return group.list_commands(Context(group))


class TestCommands:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_every_one_that_is_named_exists(self, page: Path) -> None:
        text = page.read_text(encoding="utf-8")
        named = {
            "make": set(re.findall(r"(?:^|[`$] ?|\d )make ([a-z0-9]+)", text, re.MULTILINE)),
            "kit": set(re.findall(r"(?:^|[`$] ?)kit ([a-z]+)", text, re.MULTILINE)),
        }
        targets = set(re.findall(r"^([a-z0-9]+):", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE))
        commands = set(commands_of_kit())
        assert named["make"] <= targets
        assert named["kit"] <= commands

    def test_the_readme_names_every_one(self) -> None:
        text = README.read_text(encoding="utf-8")
        makefile = (PROJECT_ROOT / "Makefile").read_text()
        targets = set(re.findall(r"^([a-z0-9]+):.*## ", makefile, re.MULTILINE)) - {"help"}
        assert [name for name in targets if f"`make {name}`" not in text] == []
        assert [name for name in commands_of_kit() if f"| `kit {name}` |" not in text] == []

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_every_link_leads_somewhere(self, page: Path) -> None:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), link
