"""The application does without tools/: the production image has no such folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.groups import COMMANDS
from app.core.configs import PROJECT_ROOT
from tests.planted import PlantedProject

pytestmark = pytest.mark.once


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

    def test_so_does_alembic(self, image: PlantedProject) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=image.folder,
            env=image.environment(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        pending = image.kit("migrate", "preview", "--timeline", "shared")  # the one that `alembic` works on
        assert (pending.returncode, pending.stdout) == (0, "")

    def test_a_revision_that_touches_anothers_table_is_refused(self, image: PlantedProject) -> None:
        versions = image.add_module("shop", "shop_things", migrations="own") / "migrations" / "versions"
        versions.mkdir(parents=True)
        text = "from alembic import op\nrevision, down_revision = 'one', None\ndestructive = 'nobody needs them'\n"
        (versions / "one.py").write_text(f"{text}def upgrade(): op.drop_table('auth_users')\ndef downgrade(): pass\n")
        done = image.kit("migrate")
        assert done.returncode == 1
        assert "shop one: drop_table on auth_users, which belongs to auth (timeline shared). Leave" in done.stderr

    def test_revisions_are_written_in_a_checkout(self, image: PlantedProject) -> None:
        done = image.kit("migrate", "revision", "-m", "things")
        assert done.returncode == 1
        assert done.stderr.startswith("`kit migrate revision` is a command for developers: ")
