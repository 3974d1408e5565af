"""Packages built as wheels, installed beside the application, and what they leave in the database."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.schema import CreateIndex, CreateTable

from app.core.configs import PROJECT_ROOT
from app.core.migrations.env import sync_url
from tests import processes
from tests.processes import environment


def run(*command: str, cwd: Path = PROJECT_ROOT, env: Mapping[str, str] | None = None) -> str:
    """What the command prints; an AssertionError with all it said where it fails."""
    done = processes.run(*command, cwd=cwd, env=os.environ if env is None else env, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


class Site:
    """A folder that packages are installed into, and the application run with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = folder / "site"
        self.settings: dict[str, str] = {}

    def install(self, source: Path) -> None:
        """Build a wheel of `source`, from a copy, and install that; without a network."""
        copy = shutil.copytree(source, self.folder / "source" / source.name)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
        run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(self.folder), str(copy))
        (wheel,) = self.folder.glob(f"{source.name}-*.whl")
        run(*pip, "install", "--no-deps", "--no-index", "--target", str(self.packages), str(wheel))

    def environment(self, **settings: str) -> dict[str, str]:
        """The packages can be imported; `settings` come on top of its own."""
        chosen = environment(self.folder, **self.settings | settings)
        return chosen | {"PYTHONPATH": str(self.packages), "PYTHONWARNINGS": ""}

    def kit(self, *arguments: str, **settings: str) -> str:
        """What a `kit` command prints."""
        return run(sys.executable, "-m", "app.cli", *arguments, env=self.environment(**settings))

    def visit(self, *requests: Sequence[Any]) -> list[dict[str, Any]]:
        """The answers to `(method, path, body)`."""
        program = (sys.executable, "-m", "tests.external.visit", json.dumps(requests))
        answers: list[dict[str, Any]] = json.loads(run(*program, env=self.environment()).splitlines()[-1])
        return answers


def tables(url: URL) -> dict[str, tuple[str, ...]]:
    """Every table there: how it would be made, and how many rows it has."""
    engine = sa.create_engine(sync_url(url), poolclass=sa.NullPool)
    metadata = sa.MetaData()
    with engine.connect() as connection:
        metadata.reflect(connection)
        return {
            table.name: (
                str(CreateTable(table).compile(engine)),
                *sorted(str(CreateIndex(index).compile(engine)) for index in table.indexes),
                str(connection.scalar(sa.select(sa.func.count()).select_from(table))),
            )
            for table in metadata.tables.values()
        }
