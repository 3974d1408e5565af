"""`kit migrate`: what it says here, and what it does in a copy of the application with a module planted."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL
from typer.testing import CliRunner

from app.cli import app
from tests.conftest import backend
from tests.planted import PlantedProject

PLANTED = """
from alembic import op
revision, down_revision = "planted", None
def upgrade(): op.drop_table("auth_users")
def downgrade(): pass
"""


@pytest.mark.usefixtures("template")
class TestUpToDate:
    """On the test suite's own database, where everything has run."""

    @pytest.fixture(autouse=True)
    def _nothing_is_left_of_other_tests(self) -> None:
        gc.collect()  # asyncio says of a task of theirs that it was destroyed, in the middle of what a command says

    def said(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["migrate", *arguments])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    def test_nothing_is_pending(self) -> None:
        assert self.said("preview") == ""
        assert self.said("upgrade") == "Nothing was pending.\n"
        assert self.said("merge") == "No timeline has several heads.\n"
        assert self.said("check", "--scratch").startswith("The migrations are sound on SQLite")

    def test_status_and_history_agree(self) -> None:
        status: Any = json.loads(self.said("status", "--json"))
        history: Any = json.loads(self.said("history", "--json", "--timeline", "shared"))
        shared = status["timelines"][0]
        assert shared["name"] == "shared"
        assert shared["current"] == shared["heads"] == [history[-1]["revision"]]
        assert all(info["applied"] for info in history)
        for word in ("TIMELINE", "shared", history[-1]["revision"]):
            assert word in self.said("status")
            assert word in self.said("history")

    def test_an_unknown_timeline_is_one_line(self) -> None:
        assert self.said("status", "-t", "nope", code=1).startswith("there is no timeline nope; there are shared")

    @pytest.mark.parametrize("revision", ["nope", "", "+99", "x@y", "head@nope"])
    def test_an_unknown_revision_is_one_line(self, revision: str) -> None:
        for command in ("upgrade", "downgrade"):
            said = self.said(command, revision, "-t", "shared", code=1)
            assert said.startswith("timeline shared: ")
            assert said.count("\n") == 1

    def test_further_back_than_the_first_revision_is_one_line(self) -> None:
        said = self.said("downgrade", "-99", "-t", "shared", code=1)
        assert said.startswith("timeline shared: ")

    @pytest.mark.parametrize("message", ["", " ", 'a"b', "a\\b", "a\nb"])
    def test_a_message_that_is_no_line_of_text_is_refused(self, message: str) -> None:
        assert self.said("revision", "-m", message, code=1).startswith("a message is one line of text")

    def test_without_a_yes_nothing_is_undone(self) -> None:
        result = CliRunner().invoke(app, ["migrate", "downgrade", "base", "-t", "shared"], input="n\n")
        assert result.exit_code == 1
        assert "drops auth_users" in result.stdout
        assert result.stderr == "Nothing was undone.\n"
        assert self.said("preview") == ""


class TestModule:
    """A module with a timeline of its own comes and is taken out."""

    @pytest.fixture
    def project(self, template: URL, tmp_path: Path) -> Iterator[PlantedProject]:
        url = backend.copy()
        found = PlantedProject(tmp_path)
        found.settings["DATABASE_URL"] = url.render_as_string(hide_password=False)
        found.add_module("widgets", "widgets_events", "widgets_notes", migrations="own")
        yield found
        backend.drop(url)

    def done(self, project: PlantedProject, *arguments: str, **settings: str) -> str:
        """What the command says; it must end well."""
        ended = project.kit("migrate", *arguments, **settings)
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout

    def test_it_is_migrated_and_left_alone_when_taken_out(self, project: PlantedProject) -> None:
        path = Path(self.done(project, "revision", "-m", "widgets").strip())
        assert path.parent == project.folder / "app" / "widgets" / "migrations" / "versions"
        assert self.done(project).endswith("is up to date.\n")

        without = {"MODULES": "app.*,-app.widgets"}
        assert self.done(project, "revision", "-m", "without", **without).startswith("Models and tables agree")
        orphans = json.loads(self.done(project, "status", "--json", **without))["orphans"]
        assert orphans == ["alembic_version_widgets", "widgets_events", "widgets_notes"]

        undone = self.done(project, "downgrade", "base", "-t", "widgets", "--yes")
        assert path.stem.split("_")[1] in undone
        assert undone.endswith("Undone.\n")

    @pytest.mark.parametrize("body", ["1 / 0", "op.execute('INSERT INTO widgets_absent VALUES (1)')"])
    def test_a_revision_that_fails_on_the_new_database_is_one_line(self, project: PlantedProject, body: str) -> None:
        versions = project.folder / "app" / "widgets" / "migrations" / "versions"
        versions.mkdir(parents=True)
        (versions / "planted.py").write_text(PLANTED.replace('op.drop_table("auth_users")', body))
        ended = project.kit("migrate", "check", "--scratch", TEST_DATABASE_URL="")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith("widgets planted: fails on sqlite: ")
        assert ended.stderr.count("\n") == 1

    def test_a_planted_operation_is_refused_in_one_line(self, project: PlantedProject) -> None:
        versions = project.folder / "app" / "widgets" / "migrations" / "versions"
        versions.mkdir(parents=True)
        (versions / "planted.py").write_text(PLANTED)
        ended = project.kit("migrate")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith("widgets planted: drop_table on auth_users, which belongs to auth (timeline ")
        assert "Traceback" not in ended.stderr
        ended = project.kit("migrate", "check", "--scratch", "--json")
        assert ended.returncode == 1
        assert {fault["kind"] for fault in json.loads(ended.stdout)["faults"]} >= {"owner", "destructive"}
