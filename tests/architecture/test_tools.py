"""The application does without tools/: the production image has no such folder."""

import ast
from pathlib import Path

import pytest

from app.cli.developer import COMMANDS
from app.core.configs import PROJECT_ROOT
from tests.planted import PlantedProject

pytestmark = pytest.mark.once


def test_the_application_imports_nothing_of_it() -> None:
    found = []
    for path in sorted((PROJECT_ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{path}:{name}" for name in names if name.partition(".")[0] == "tools"]
    assert found == []


def test_the_image_has_no_such_folder() -> None:
    production = (PROJECT_ROOT / "Dockerfile").read_text().partition(" AS production\n")[2]
    copied = [line.split()[1:] for line in production.splitlines() if line.startswith("COPY")]
    assert ["app", "app"] in copied
    assert not any({".", "tools"} & set(names) for names in copied)


class TestImage:
    """`kit` in a folder with what the production image has."""

    @pytest.fixture
    def image(self, tmp_path: Path) -> PlantedProject:
        return PlantedProject(tmp_path, tools=False)

    def test_a_missing_command_is_named_in_one_line(self, image: PlantedProject) -> None:
        for command in (("module", "new", "shop"), ("routes", "--check"), ("mail", "preview", "--help")):
            done = image.kit(*command)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == (
                f"`kit {command[0]}` is a command for developers: it needs the folder tools/, which is not part of "
                "this image. Run it in a checkout of the project.\n"
            )

    def test_the_help_says_which_are_missing(self, image: PlantedProject) -> None:
        said = " ".join(image.kit("--help").stdout.split())
        assert f"Only in a checkout, not in this image: {', '.join(COMMANDS['kit'])}." in said
        assert " users " in said

    def test_the_commands_of_operators_work(self, image: PlantedProject) -> None:
        assert image.kit("migrate").returncode == 0
        assert image.kit("ready").returncode == 0
