"""Every Python snippet of the docs runs as it is written, and they name what there is to use."""

import ast
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from sqlalchemy.engine import URL

from app.core.configs import PROJECT_ROOT
from tests import processes
from tests.conftest import backend
from tests.contract.docs_page import snippets

CROSSING = """```python
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BaseModel


class Coin(BaseModel):
    __tablename__ = "stall_coins"

    user_id: Mapped[int] = mapped_column(ForeignKey("auth_users.id"))


class Order(BaseModel):
    __tablename__ = "till_orders"
```
"""
NO_STORES = ("commands.md", "configuration.md", "generators.md", "modules.md", "testing.md")
"""Pages whose snippets do the same whatever the stores."""
PAGES = [page for page in sorted(PROJECT_ROOT.glob("docs/*.md")) if any(wanted for *_, wanted in snippets(page))]


@pytest.fixture
def run(template: URL, tmp_path: Path) -> Callable[[Path], CompletedProcess[str]]:
    """Run a page in a process of its own, on a database of its own."""

    def run(page: Path) -> CompletedProcess[str]:
        url = backend.copy()
        settings = {"DATABASE_URL": url.render_as_string(hide_password=False), "VAR_DIR": str(tmp_path)}
        try:
            command = (sys.executable, "-W", "error", "-m", "tests.contract.docs_page", str(page))
            return processes.run(*command, env={**os.environ, **settings}, timeout=600)
        finally:
            backend.drop(url)

    return run


Run = Callable[[Path], CompletedProcess[str]]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.once] if page.name in NO_STORES else [], id=page.name) for page in PAGES],
)
def test_snippets_run(page: Path, run: Run) -> None:
    done = run(page)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 0


@pytest.mark.once
def test_a_table_that_crosses_a_boundary_is_found(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(CROSSING)
    done = run(page)
    assert done.returncode == 1
    assert "M6 app.stall.page.Coin.user_id has a foreign key to auth_users, a table of auth" in done.stderr
    assert "M6 app.stall.page.Order is the table till_orders, whose name does not say that it belongs" in done.stderr


def names_in(path: Path) -> Iterator[str]:
    """The names of all there is in a file of tests, as `pytest` takes them."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{part.name}" for part in node.body if hasattr(part, "name"))
        elif hasattr(node, "name"):
            yield node.name


@pytest.mark.once
def test_every_test_that_is_named_exists() -> None:
    pages = "\n".join(page.read_text() for page in PROJECT_ROOT.glob("docs/*.md"))
    named = set(re.findall(r"`(tests/[^`\s]+?\.py)::([^`\[]+)(?:\[([^`]+)\])?`", pages))
    assert named
    for path, test, parameter in named:
        source = PROJECT_ROOT / path
        assert source.exists()
        assert test in set(names_in(source))
        assert f'"{parameter}"' in source.read_text() or not parameter


SERVICES = ("cache", "events", "http", "log", "mail", "queue")
CORE = ("api", "configs", "db", "deps", "modules", *(f"services.{name}" for name in SERVICES))
PACKAGES = (*(f"app.core.{name}" for name in CORE), "tools.boundaries")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_in_the_docs(name: str) -> None:
    text = "\n".join(page.read_text() for page in PROJECT_ROOT.glob("docs/*.md"))
    public = importlib.import_module(name).__all__
    assert [word for word in public if not re.search(rf"\b{word}\b", text)] == []
