"""Eight upgrades that start at once all end well; `UPGRADE_ROUNDS` says how often that is tried."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.conftest import backend
from tests.core.migrations.timelines import tables_of
from tests.planted import PlantedProject
from tests.processes import started

pytestmark = pytest.mark.skipif(not os.environ.get("E2E"), reason="starts eight processes a round: make e2e")

AT_ONCE = 8
ROUNDS = int(os.environ.get("UPGRADE_ROUNDS", "1"))


@pytest.fixture(scope="module")
def project(template: URL, tmp_path_factory: pytest.TempPathFactory) -> PlantedProject:
    """The application with a module on the shared timeline and one on its own, their revisions written."""
    found = PlantedProject(tmp_path_factory.mktemp("upgrades"))
    found.add_module("widgets", "widgets_events")
    found.add_module("gadgets", "gadgets_events", migrations="own")
    url = backend.copy()
    written = found.kit("migrate", "revision", "-m", "planted", DATABASE_URL=url.render_as_string(hide_password=False))
    backend.drop(url)
    assert written.stdout.count("planted.py") == 2, written.stderr
    return found


@pytest.fixture
def empty() -> Iterator[URL]:
    """A database without a table; on SQLite not even a file."""
    url = backend.empty()
    yield url
    backend.drop(url)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_all_end_well(number: int, project: PlantedProject, empty: URL, tmp_path: Path) -> None:
    settings = project.environment(DATABASE_URL=empty.render_as_string(hide_password=False))
    logs = [tmp_path / f"{each}.log" for each in range(AT_ONCE)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(started(*project.command("migrate"), env=settings, log=log, cwd=project.folder))
            for log in logs
        ]
        ended = [process.wait(timeout=600) for process in running]
    for code, log in zip(ended, logs, strict=True):
        said = log.read_text()
        assert code == 0, said
        assert said.endswith("is up to date.\n")
    assert {"alembic_version_gadgets", "widgets_events", "gadgets_events", "core_jobs"} <= tables_of(empty)
