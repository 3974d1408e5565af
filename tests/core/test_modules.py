"""Which modules are found, in which order, and what a wrong manifest or setting says."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.exceptions import ConfigError
from app.core.modules import discover, installed_modules, present_modules, table_owner

pytestmark = pytest.mark.once

Maker = Callable[..., str]


@pytest.fixture
def module(tmp_path: Path) -> Maker:
    """Make a module below `tmp_path` that nobody imports."""

    def make(name: str, manifest: str = "", docstring: str = "") -> str:
        folder = tmp_path / "app" / name
        folder.mkdir(parents=True)
        (folder / "module.toml").write_text(manifest)
        (folder / "__init__.py").write_text(f'"""{docstring}"""' if docstring else "")
        return f"app.{name}"

    return make


@pytest.fixture
def names(tmp_path: Path) -> Callable[..., list[str]]:
    """The names of what `MODULES` chooses below `tmp_path`."""
    return lambda *chosen: [found.name for found in discover(chosen or ["app.*"], tmp_path)]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., list[str]]:
    """The lines that refuse `MODULES`."""

    def refuse(*chosen: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            discover(chosen or ["app.*"], tmp_path)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return refuse


Names = Callable[..., list[str]]


class TestDiscovery:
    def test_the_installed_ones(self) -> None:
        assert "app.auth" in [module.name for module in installed_modules()]
        assert "app.core" not in [module.name for module in installed_modules()]

    def test_a_folder_elsewhere_in_the_project_is_one_when_it_is_named(self, module: Maker, names: Names) -> None:
        module("shop")
        module("../tests/faults", 'depends_on = ["app.shop"]')
        assert names("app.*", "tests.faults") == ["app.shop", "tests.faults"]

    def test_a_folder_with_a_manifest_is_a_module(self, module: Maker, names: Names, tmp_path: Path) -> None:
        module("shop", docstring="Sells things.\n\nMany things.")
        (tmp_path / "app" / "leftover" / "__pycache__").mkdir(parents=True)
        assert names() == ["app.shop"]
        (found,) = present_modules(tmp_path)
        assert (found.short_name, found.table_prefix, found.migrations) == ("shop", "shop_", "shared")
        assert found.summary == "Sells things."

    def test_dependencies_come_first_and_the_rest_as_it_is_named(self, module: Maker, names: Names) -> None:
        for name, manifest in {"ant": 'depends_on = ["app.zebra"]', "zebra": "", "bee": "", "cat": ""}.items():
            module(name, manifest)
        assert names() == ["app.zebra", "app.ant", "app.bee", "app.cat"]
        assert names("app.cat", "app.ant", "app.zebra") == ["app.cat", "app.zebra", "app.ant"]
        assert names("app.cat", "app.*") == ["app.cat", "app.zebra", "app.ant", "app.bee"]

    def test_one_is_left_out(self, module: Maker, names: Names) -> None:
        module("one")
        module("two")
        assert names("app.*", "-app.one") == names("-app.one") == ["app.two"]

    def test_an_installed_package_is_external(
        self, module: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "house_reviews"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "module.toml").write_text('entrypoint = "house_reviews:register"\ndepends_on = ["app.shop"]')
        monkeypatch.syspath_prepend(tmp_path)
        module("shop")
        shop, reviews = discover(["house_reviews", "app.*"], tmp_path)
        assert (shop.external, reviews.external, reviews.migrations) == (False, True, "own")
        assert reviews.path == package
        assert "house_reviews" not in sys.modules

    def test_a_table_belongs_to_the_longest_prefix(self) -> None:
        owners = ["core", "order", "order_items"]
        assert table_owner("order_items_stock", owners) == "order_items"
        assert table_owner("order_lines", owners) == "order"
        assert table_owner("orders", owners) is None


Refused = Callable[..., list[str]]


class TestRefusals:
    def test_a_circle_is_shown(self, module: Maker, refused: Refused) -> None:
        module("one", 'depends_on = ["app.two"]')
        module("two", 'depends_on = ["app.three"]')
        module("three", 'depends_on = ["app.two"]')
        (line,) = refused("app.one", "app.two", "app.three")
        assert "circle: app.two > app.three > app.two;" in line

    def test_a_module_that_depends_on_itself(self, module: Maker, refused: Refused) -> None:
        module("one", 'depends_on = ["app.one"]')
        assert "circle: app.one > app.one;" in refused()[0]

    @pytest.mark.parametrize(
        ("depends_on", "reason"),
        [
            ("app.auht", "app.auht is no module; did you mean app.auth?"),
            ("auth", "auth is no module; did you mean app.auth?"),
            ("app.core", "app.core is no module: take it out"),
            ("app.left_out", "app.left_out is not installed: add it to MODULES"),
            ("fastapi", "fastapi is not installed: add it to MODULES"),
        ],
    )
    def test_a_missing_dependency(self, module: Maker, refused: Refused, depends_on: str, reason: str) -> None:
        module("one", f'depends_on = ["{depends_on}"]')
        module("auth")
        module("left_out")
        assert refused("app.*", "-app.left_out") == [f"app/one/module.toml: depends_on: {reason}"]

    @pytest.mark.parametrize(
        ("chosen", "line"),
        [
            ("app.shpo", "MODULES: app.shpo does not exist; did you mean app.shop?"),
            ("-app.shpo", "MODULES: app.shpo does not exist; did you mean app.shop?"),
            ("app.core", "MODULES: app.core does not exist"),
            ("shop", "MODULES: no package shop is installed; did you mean app.shop?"),
            ("no_package", "MODULES: no package no_package is installed"),
            ("__main__", "MODULES: no package __main__ is installed"),
            (
                "json.decoder",
                "MODULES: 'json.decoder' is no module name: write app.*, app.<folder> or a package's name",
            ),
            ("app/shop", "MODULES: 'app/shop' is no module name: write app.*, app.<folder> or a package's name"),
        ],
    )
    def test_what_does_not_exist(self, module: Maker, refused: Refused, chosen: str, line: str) -> None:
        module("shop")
        assert refused("app.*", chosen) == [line]

    def test_one_named_twice(self, module: Maker, refused: Refused) -> None:
        assert refused(module("shop"), "app.shop") == ["MODULES names app.shop twice"]

    def test_two_with_the_same_tables(
        self, module: Maker, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "house_shop"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "module.toml").write_text('entrypoint = "house_shop:register"')
        monkeypatch.syspath_prepend(tmp_path)
        module("house_shop")
        assert refused("app.*", "house_shop") == [
            "MODULES: app.house_shop and house_shop would both own the tables house_shop_*"
        ]

    def test_a_folder_that_is_no_package(self, module: Maker, refused: Refused, tmp_path: Path) -> None:
        module("shop")
        module("two-words")
        module("core")
        module("worker")
        (tmp_path / "app" / "shop" / "__init__.py").unlink()
        assert refused() == [
            "app/core/module.toml: app.core is part of the service itself: remove the file, or rename the folder",
            "app/shop has no __init__.py: add one, its docstring says what the module is for",
            "app/two-words: 'two-words' cannot be imported: rename the folder, for example app/shop",
            "app/worker/module.toml: app.worker is part of the service itself: remove the file, or rename the folder",
        ]


class TestManifest:
    @pytest.mark.parametrize(
        ("manifest", "fault"),
        [
            ("depends_on = [", "not valid TOML: Invalid value (at end of document)"),
            ('depend_on = ["app.auth"]', "depend_on: unknown key; did you mean depends_on?"),
            ("colour = 1", "colour: unknown key; the keys are depends_on, exposes, migrations, exceptions"),
            ("depends_on = 'x'", 'depends_on: input should be a valid tuple; write depends_on = ["app.auth"]'),
            ("depends_on = [1]", 'depends_on[0]: input should be a valid string; write depends_on = ["app.auth"]'),
            ("exposes = 'deps'", 'exposes: input should be a valid tuple; write exposes = ["deps", "schemas.user"]'),
            ("exposes = ['models']", "exposes: app.shop has no models: take it out"),
            ("exposes = ['/etc', '..']", "exposes: app.shop has no /etc: take it out"),
            ("exposes = ['']", "exposes[0]: "),
            ("migrations = 'mine'", "migrations: input should be 'shared' or 'own'; write migrations = "),
            ("[[exceptions]]\nrule = 'M9'\nfrom = 'a'\nto = 'b'\nreason = 'c'", "exceptions[0].rule: input should be"),
            ("[[exceptions]]\nrule = 'M1'\nfrom = 'a'\nto = 'b'", "exceptions[0].reason: field required; write"),
            ("[[exceptions]]\nrule = 'M1'\nfrom = 'a'\nto = 'b'\nreason = ' '", "exceptions[0].reason: "),
            ("[[exceptions]]\nrule = 'M1'\nform = 'a'\nto = 'b'\nreason = 'c'", "exceptions[0].from: field required;"),
            ("[[exceptions]]\nrule = 'M1'\nfrom = 'a'\nto = 'b'\nreason = 'c'\nwhy = ''", "exceptions[0].why: unknown"),
        ],
    )
    def test_a_wrong_one_names_file_key_and_fix(
        self, module: Maker, refused: Refused, manifest: str, fault: str
    ) -> None:
        module("shop", manifest)
        line, *_ = refused()
        assert line.startswith(f"app/shop/module.toml: {fault}")

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("exeptions", "; did you mean exceptions?"),
            ("app.shop.exceptions", "; write exceptions"),
            ("schemas.user.py", "; write schemas.user"),
            ("schemas/user.py", "; write schemas.user"),
        ],
    )
    def test_what_is_exposed_must_be_there(
        self, module: Maker, refused: Refused, tmp_path: Path, name: str, advice: str
    ) -> None:
        module("shop", f'exposes = ["exceptions", "schemas", "schemas.user", "{name}"]')
        (tmp_path / "app/shop/exceptions.py").touch()
        (tmp_path / "app/shop/schemas").mkdir()
        for file in ("__init__.py", "user.py"):
            (tmp_path / "app/shop/schemas" / file).touch()
        assert refused() == [f"app/shop/module.toml: exposes: app.shop has no {name}{advice}"]

    def test_every_fault_is_a_line(self, module: Maker, refused: Refused) -> None:
        module("one", "depend_on = []\nmigrations = 1")
        module("two", "depends_on = 1")
        assert [line.split(": ")[:2] for line in refused()] == [
            ["app/one/module.toml", "migrations"],
            ["app/one/module.toml", "depend_on"],
            ["app/two/module.toml", "depends_on"],
        ]

    def test_one_that_is_no_text(self, module: Maker, refused: Refused, tmp_path: Path) -> None:
        module("shop")
        (tmp_path / "app" / "shop" / "module.toml").write_bytes(b"\xff")
        assert refused() == ["app/shop/module.toml: not valid TOML: it is not UTF-8 at byte 0"]

    def test_a_byte_order_mark_is_passed_over(self, module: Maker, names: Names, tmp_path: Path) -> None:
        module("shop")
        (tmp_path / "app" / "shop" / "module.toml").write_bytes(b"\xef\xbb\xbfdepends_on = []")
        assert names() == ["app.shop"]

    def test_an_external_one_needs_an_entrypoint(
        self, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "house_bare").mkdir()
        (tmp_path / "house_bare" / "__init__.py").touch()
        (tmp_path / "house_bare" / "module.toml").touch()
        monkeypatch.syspath_prepend(tmp_path)
        assert refused("house_bare") == [
            'house_bare/module.toml: entrypoint: field required; write entrypoint = "package.module:function"'
        ]
