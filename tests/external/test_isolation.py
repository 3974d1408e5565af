"""E1: what an installed package imports of the service is found, wherever it hides."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.external.conftest import Package
from tools.boundaries import isolation_violations

pytestmark = pytest.mark.once

Write = Callable[..., Path]


@pytest.mark.parametrize(
    "line",
    [
        "import app",
        "import app.core.db as database",
        "import json, app",
        "from app.core.deps import DBSession",
        "def late():\n    from app import auth",
        "import importlib\nimportlib.import_module('app.core.db')",
        "from importlib import import_module as import_module\nimport_module(name='app')",
        "__import__('app.auth')",
    ],
)
def test_an_import_in_any_style_is_found(package: Package, write: Write, line: str, tmp_path: Path) -> None:
    write("guest", {"deep/down.py": f"{line}\n"})
    (found,) = isolation_violations(package())
    number = len(line.splitlines())
    assert (found.file, found.line, found.rule) == (f"{tmp_path}/guest/deep/down.py", number, "E1")
    assert found.message.startswith("guest imports app")
    assert "app.state.kit" in found.fix


def test_what_only_looks_like_it_is_not(package: Package, write: Write) -> None:
    lines = [
        "import apparatus",
        "from .app import x",
        "from . import app",
        "'import app'",
        "import_module('.app')",
        "import __main__",
    ]
    write("guest", {"fine.py": "\n".join(lines)})
    assert isolation_violations(package()) == []


def test_by_way_of_other_packages(package: Package, write: Write, tmp_path: Path) -> None:
    write("friend", {"__init__.py": "def late():\n    import stranger.inside"})
    write("stranger", {"__init__.py": "", "inside.py": "from app.auth import UserDTO\nimport guest, friend"})
    (found,) = isolation_violations(package(init="import friend"))
    assert (found.file, found.line) == (f"{tmp_path}/stranger/inside.py", 1)
    assert found.message == "stranger imports app.auth, and guest uses friend uses stranger"
    assert found.fix.startswith("do without friend in guest")


def test_a_package_that_is_one_file(package: Package, tmp_path: Path) -> None:
    (tmp_path / "lonely_friend.py").write_text("import app\n")
    (found,) = isolation_violations(package(init="import lonely_friend"))
    assert found.file == f"{tmp_path}/lonely_friend.py"


@pytest.mark.parametrize("manifest", ['entrypoint = "friend.web:register"', 'models_module = "friend.tables"'])
def test_where_the_manifest_points_to(package: Package, write: Write, manifest: str, tmp_path: Path) -> None:
    write("friend", {"__init__.py": "import app"})
    (found,) = isolation_violations(package(manifest=manifest))
    assert (found.file, found.message) == (f"{tmp_path}/friend/__init__.py", "friend imports app")


def test_what_the_service_is_built_on_is_not_read(package: Package) -> None:
    assert isolation_violations(package(init="import fastapi, sqlalchemy, alembic, not_installed_anywhere")) == []


def test_a_file_that_is_no_python_of_ours_is_passed_over(package: Package, write: Write) -> None:
    write("guest", {"template.py": "class {{ name }}: ...", "later.py": "import app"})
    (found,) = isolation_violations(package())
    assert found.file.endswith("later.py")
