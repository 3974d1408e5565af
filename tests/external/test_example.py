"""The example package: built as a wheel, installed, mounted, migrated, used and removed."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from app.core.configs import PROJECT_ROOT
from app.core.modules.discovery import find_external
from tests.external.installed import Site, run, tables
from tests.processes import served_settings
from tools.boundaries import isolation_violations

EXAMPLE = PROJECT_ROOT / "examples" / "shop_reviews"
NAME = "shop_reviews"
OURS = {"shop_reviews_reviews", "alembic_version_shop_reviews"}
REVIEW = {"product_id": 7, "stars": 4, "text": "Does what it says."}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The example's wheel, installed."""
    site = Site(tmp_path_factory.mktemp("example"))
    site.install(EXAMPLE)
    return site


@pytest.fixture
def site(installed: Site, template: URL) -> Iterator[Site]:
    """The application with the example and a database of the test's own."""
    with served_settings() as settings:
        installed.settings = settings | {"MODULES": f"app.*,{NAME}"}
        yield installed


def test_its_own_tests_pass_with_what_was_installed(installed: Site, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    shutil.copy(EXAMPLE / "pyproject.toml", tmp_path)
    said = run(sys.executable, "-m", "pytest", "-q", cwd=tmp_path, env=installed.environment())
    assert " passed" in said


def test_it_knows_nothing_of_the_service(installed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed.packages)
    assert isolation_violations(find_external(NAME)) == []


def test_it_lives_beside_the_service_and_leaves_without_a_trace(site: Site) -> None:
    url = make_url(site.settings["DATABASE_URL"])
    before = tables(url)
    site.kit("migrate")
    migrated = tables(url)
    assert migrated.keys() - before.keys() == OURS
    assert {name: migrated[name] for name in before} == before
    site.kit("migrate", "check")

    written, again, listed, rating, wrong, document = site.visit(
        ["POST", f"/{NAME}", REVIEW],
        ["POST", f"/{NAME}", REVIEW],
        ["GET", f"/{NAME}?sort=stars:desc&filters=product_id:7,stars__gte:4", None],
        ["GET", f"/{NAME}/ratings/7", None],
        ["GET", f"/{NAME}/ratings/0", None],
        ["GET", "/openapi.json", None],
    )
    assert (written["status"], again["status"]) == (201, 409)
    assert again["type"] == wrong["type"] == "application/problem+json"
    assert again["body"]["request_id"] == again["headers"]["x-request-id"]
    assert listed["body"]["data"] == [written["body"]["data"]]
    assert listed["body"]["meta"]["pagination"]["total"] == 1
    assert rating["body"] == {"data": {"reviews": 1, "stars": 4.0}}
    assert (wrong["status"], wrong["body"]["errors"][0]["loc"]) == (422, ["path", "product_id"])
    operation = document["body"]["paths"][f"/{NAME}"]["post"]
    assert (operation["tags"], operation["operationId"]) == ([NAME], f"{NAME}_write_review")
    assert "security" in operation
    assert "#/components/responses/Problem409" in str(operation["responses"])

    used = tables(url)
    assert "shop_reviews_reviews" in site.kit("migrate", "status", MODULES="app.*")  # taken out, it is an orphan
    site.kit("migrate", "downgrade", "base", "-t", NAME, "--yes")
    downgraded = tables(url)
    assert used.keys() - downgraded.keys() == OURS - {"alembic_version_shop_reviews"}
    assert {name: downgraded[name] for name in before} == {name: used[name] for name in before}
