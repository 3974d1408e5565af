"""Packages that fastappkit 0.2.2 generates install, mount, migrate and leave again, unchanged.

Its wheel comes from the package index, into a folder of the test: it is no dependency of ours. So `make test` leaves
this out, and `make e2e` asks for it, with E2E=1.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from tests.external.installed import Site, run, tables
from tests.processes import environment, served_settings

pytestmark = pytest.mark.skipif(not os.environ.get("E2E"), reason="asks the package index: make e2e")

GENERATOR = ("fastappkit==0.2.2", "tomlkit>=0.13.3,<0.14")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("generator")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *GENERATOR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        pytest.skip(f"fastappkit cannot be had from the package index: {done.stderr.strip().splitlines()[-1]}")
    return folder


def generated(generator: Path, folder: Path, name: str) -> Path:
    """What `fastappkit app new NAME --as-package` writes."""
    env = environment(folder) | {"PYTHONPATH": str(generator)}
    run(sys.executable, "-m", "fastappkit.cli.main", "app", "new", name, "--as-package", cwd=folder, env=env)
    return folder / name


def add_model(package: Path) -> None:
    """Take in the example model, as its file says, and have its own Alembic write the revision."""
    models = package / package.name / "models.py"
    head, _, example = models.read_text().partition("# class ExampleModel")
    models.write_text(head + re.sub(r"^# ?", "", f"# class ExampleModel{example}", flags=re.MULTILINE))
    command = (sys.executable, "-m", "alembic", "revision", "--autogenerate", "-m", "example")
    run(*command, cwd=package, env=environment(package) | {"PYTHONPATH": ""})


@pytest.fixture(scope="module")
def installed(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A package with a model and a revision, and one as it was generated."""
    folder = tmp_path_factory.mktemp("generated")
    site = Site(folder)
    ratings = generated(generator, folder, "ratings")
    add_model(ratings)
    site.install(ratings)
    site.install(generated(generator, folder, "pristine"))
    return site


@pytest.fixture
def site(installed: Site, template: URL) -> Iterator[Site]:
    """The application with both and a database of the test's own."""
    with served_settings() as settings:
        installed.settings = settings | {"MODULES": "app.*,ratings,pristine"}
        yield installed


def test_it_installs_mounts_migrates_and_leaves_without_touching_another_table(site: Site) -> None:
    url = make_url(site.settings["DATABASE_URL"])
    before = tables(url)
    site.kit("migrate")
    migrated = tables(url)
    assert migrated.keys() - before.keys() == {"ratings_example", "alembic_version_ratings"}
    assert {name: migrated[name] for name in before} == before
    site.kit("migrate", "check")
    assert "Every boundary holds." in site.kit("module", "validate")

    root, health, pristine, missing = site.visit(
        *(["GET", path, None] for path in ("/ratings/", "/ratings/health", "/pristine/", "/ratings/nothing"))
    )
    assert root["body"] == {"app": "ratings", "message": "Hello from ratings!"}
    assert (health["body"], pristine["body"]["app"]) == ({"status": "ok"}, "pristine")
    assert (missing["status"], missing["type"]) == (404, "application/problem+json")

    used = tables(url)
    assert "ratings_example" in site.kit("migrate", "status", MODULES="app.*,pristine")
    site.kit("migrate", "downgrade", "base", "-t", "ratings", "--yes")
    site.kit("migrate", MODULES="app.*")
    removed = tables(url)
    assert used.keys() - removed.keys() == {"ratings_example"}
    assert {name: removed[name] for name in before} == {name: used[name] for name in before}
