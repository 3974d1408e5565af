"""Which modules are found, in which order, and what a wrong manifest says."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.exceptions import ConfigError
from app.core.modules import discover, installed_modules, parts

Maker = Callable[..., str]


@pytest.fixture
def module(tmp_path: Path) -> Maker:
    """Make a package with a manifest below `tmp_path`."""

    def make(name: str, manifest: str = "") -> str:
        (tmp_path / "shop" / name).mkdir(parents=True)
        (tmp_path / "shop" / name / "module.toml").write_text(manifest)
        return f"shop.{name}"

    return make


class TestDiscovery:
    def test_the_installed_ones(self) -> None:
        assert "app.auth" in [module.name for module in installed_modules()]
        assert "app.core" not in [module.name for module in installed_modules()]

    def test_dependencies_come_first(self, module: Maker, tmp_path: Path) -> None:
        module("zebra")
        module("ant", 'depends_on = ["shop.zebra"]')
        assert [found.name for found in discover(["shop.*"], tmp_path)] == ["shop.zebra", "shop.ant"]

    def test_listed_ones_only(self, module: Maker, tmp_path: Path) -> None:
        module("one")
        module("two")
        assert [found.name for found in discover(["shop.one"], tmp_path)] == ["shop.one"]

    def test_parts_are_imported_in_order(self) -> None:
        assert sys.modules["app.auth.models"] in list(parts("models"))
        assert list(parts("no_module_has_this")) == []


class TestRefusals:
    def test_a_circle_is_shown(self, module: Maker, tmp_path: Path) -> None:
        module("two", 'depends_on = ["shop.three"]')
        module("three", 'depends_on = ["shop.two"]')
        with pytest.raises(ConfigError, match=r"circle: .*shop\.two") as caught:
            discover(["shop.*"], tmp_path)
        assert "shop.three" in str(caught.value)

    def test_a_missing_dependency_is_named(self, module: Maker, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"shop\.absent: not installed"):
            discover([module("one", 'depends_on = ["shop.absent"]')], tmp_path)

    @pytest.mark.parametrize(
        ("manifest", "message"), [("depends_on = [", "not valid TOML"), ("depends_on = 'x'", "depends_on must be")]
    )
    def test_a_wrong_manifest_names_the_file(self, module: Maker, tmp_path: Path, manifest: str, message: str) -> None:
        with pytest.raises(ConfigError, match=rf"module\.toml: {message}"):
            discover([module("one", manifest)], tmp_path)

    def test_an_unknown_module_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"MODULES: app\.absent"):
            discover(["app.absent"], tmp_path)
