"""What is declared, what is locked and what pip installs are the same."""

import re
import tomllib
from typing import Any

import pytest

from app.cli.doctor.installation import content_hash
from app.core.configs import PROJECT_ROOT

pytestmark = pytest.mark.once

_REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^ ]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")

LOCK = tomllib.loads((PROJECT_ROOT / "poetry.lock").read_text())
ADVICE = "make lock"


def exported(name: str) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes of every requirement of a file, by name."""
    found = {}
    for entry in re.split(r"\n(?=[^\s#])", (PROJECT_ROOT / name).read_text()):
        if match := _REQUIREMENT.match(entry):
            found[match["name"].lower()] = (match["version"], set(_HASH.findall(entry)))
    return found


def locked(*groups: str) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes of every locked package of `groups`, by name."""
    return {
        package["name"].lower(): (package["version"], {file["hash"] for file in package["files"]})
        for package in LOCK["package"]
        if set(package["groups"]) & set(groups) - _only_by_extra(package)
    }


def _only_by_extra(package: dict[str, Any]) -> set[str]:
    """The groups to which the package belongs by an extra alone, which the exports leave out."""
    markers = package.get("markers", {})
    markers = dict.fromkeys(package["groups"], markers) if isinstance(markers, str) else markers
    return {group for group, marker in markers.items() if "extra ==" in marker}


class TestLock:
    def test_it_belongs_to_what_is_declared(self) -> None:
        pyproject = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
        assert content_hash(pyproject) == LOCK["metadata"]["content-hash"], f"poetry.lock is behind: {ADVICE}"

    def test_a_changed_dependency_is_noticed(self) -> None:
        pyproject = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
        pyproject["project"]["dependencies"].append("requests (>=2)")
        assert content_hash(pyproject) != LOCK["metadata"]["content-hash"]


class TestRequirements:
    @pytest.mark.parametrize(
        ("name", "groups"),
        [("requirements.txt", ("main", "build")), ("requirements-dev.txt", ("main", "build", "dev"))],
    )
    def test_they_are_exported_from_the_lock(self, name: str, groups: tuple[str, ...]) -> None:
        assert exported(name) == locked(*groups), f"{name} is behind: {ADVICE}"

    def test_an_extra_that_a_locked_package_asks_for_is_named(self) -> None:
        """Where it is not, pip before 23.3 wants the newest release of what is asked for, which has no hash here."""
        asked = {
            f"{name}[{','.join(wanted['extras'])}]=="
            for package in LOCK["package"]
            for name, found in package.get("dependencies", {}).items()
            for wanted in (found if isinstance(found, list) else [found])
            if isinstance(wanted, dict) and "extras" in wanted
        }
        exported_text = (PROJECT_ROOT / "requirements-dev.txt").read_text()
        missing = {extra for extra in asked if f"\n{extra}" not in exported_text}
        assert not missing, f"have `{ADVICE}` write these with their extras, or do without the package that asks"

    def test_every_requirement_is_pinned_by_hash(self) -> None:
        assert all(hashes for _, hashes in exported("requirements-dev.txt").values())
