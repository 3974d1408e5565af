"""What an installed package may say of itself, in either kind of manifest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.exceptions import ConfigError
from app.core.modules.discovery import find_external
from tests.external.conftest import Package

pytestmark = pytest.mark.once

Write = Callable[..., Path]

FASTAPPKIT = """
[tool.fastappkit]
name = "guest"
version = "0.1.0"
entrypoint = "guest.app:App"
migrations = "alembic"
models_module = "guest.tables"
route_prefix = "/visitors"
per_app_migrations = true
"""


def fault(name: str) -> str:
    """The line that refuses the package, with its folder's name alone."""
    with pytest.raises(ConfigError) as caught:
        find_external(name)
    return str(caught.value)


class TestModuleToml:
    def test_only_the_entrypoint_is_needed(self, package: Package) -> None:
        guest = package()
        assert (guest.route_prefix, guest.migrations, guest.external) == ("/guest", "own", True)
        assert guest.versions == guest.path / "migrations" / "versions"
        assert guest.models is None

    def test_everything_else_can_be_said(self, package: Package, write: Write) -> None:
        said = 'name = "guest"\nmigrations_dir = "revisions"\nmodels_module = "guest.tables"\nroute_prefix = ""'
        write("guest", {"tables.py": "here = True"})
        guest = package(manifest=said)
        assert (guest.route_prefix, guest.versions) == ("", guest.path / "revisions" / "versions")
        assert guest.models is not None
        assert guest.models.here

    @pytest.mark.parametrize(
        ("manifest", "key"),
        [
            ('entrypoint = "guest"', "entrypoint"),
            ('entrypoint = ":register"', "entrypoint"),
            ('route_prefix = "visitors"', "route_prefix"),
            ('route_prefix = "/visitors/"', "route_prefix"),
            ('route_prefix = "/"', "route_prefix"),
            ('migrations = "shared"', "migrations"),
            ('exposes = ["deps"]', "exposes"),
            ('name = "host"', "name"),
            ('entry_point = "guest:register"', "entry_point"),
        ],
    )
    def test_a_fault_names_file_key_and_fix(self, package: Package, manifest: str, key: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            package(manifest=manifest)
        assert f"{tmp_path}/guest/module.toml: {key}: " in str(caught.value)
        assert any(word in str(caught.value) for word in ("write ", "did you mean "))

    def test_models_that_cannot_be_imported(self, package: Package, write: Write) -> None:
        guest = package(manifest='models_module = "guest.nowhere"')
        with pytest.raises(ConfigError, match=r"models_module: guest\.nowhere cannot be imported: ModuleNotFound"):
            _ = guest.models
        write("guest", {"models.py": "1 / 0"})
        with pytest.raises(ConfigError, match=r"models_module: guest\.models cannot be imported: ZeroDivisionError"):
            _ = package().models


class TestFastappkitToml:
    def test_its_keys_mean_what_they_mean_there(self, write: Write) -> None:
        write("guest", {"__init__.py": "", "fastappkit.toml": FASTAPPKIT})
        guest = find_external("guest")
        assert guest.manifest.entrypoint == "guest.app:App"
        assert guest.manifest.models_module == "guest.tables"
        assert (guest.route_prefix, guest.versions) == ("/visitors", guest.path / "alembic" / "versions")

    def test_ours_wins(self, package: Package, write: Write) -> None:
        write("guest", {"fastappkit.toml": FASTAPPKIT})
        assert package().route_prefix == "/guest"

    @pytest.mark.parametrize("content", ["", "tool = 1", "[tool]\nfastappkit = 1"])
    def test_without_its_table(self, write: Write, content: str) -> None:
        write("guest", {"__init__.py": "", "fastappkit.toml": content})
        assert fault("guest").endswith("guest/fastappkit.toml: there is no table [tool.fastappkit]")

    def test_without_an_entrypoint(self, write: Write) -> None:
        write("guest", {"__init__.py": "", "fastappkit.toml": "[tool.fastappkit]"})
        assert "guest/fastappkit.toml: entrypoint: field required" in fault("guest")


class TestNames:
    @pytest.mark.parametrize("name", ["app", "core", "shared"])
    def test_those_of_the_service_are_taken(self, name: str) -> None:
        assert fault(name) == f"MODULES: {name} is taken by the service itself: a package needs another name"

    def test_a_package_that_is_no_module(self) -> None:
        assert fault("json").startswith("MODULES: json is no module: ")
        assert fault("json").endswith("has neither module.toml nor fastappkit.toml")
