"""A copy of the application in a folder of its own, for tests that plant modules in it."""

import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess

from app.core.configs import PROJECT_ROOT
from tests.processes import environment, run

MODELS = '''"""Tables."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BaseModel
'''
MODEL = '''

class {name}(BaseModel):
    """A row."""

    __tablename__ = "{table}"

    note: Mapped[str] = mapped_column(String(20))
'''


class PlantedProject:
    """The application, its migrations, its tools and what a test adds."""

    def __init__(self, folder: Path, *, tools: bool = True) -> None:
        self.folder = folder
        self.settings: dict[str, str] = {}
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("app", "migrations", *(["tools"] if tools else [])):
            shutil.copytree(PROJECT_ROOT / name, folder / name, ignore=ignored)
        shutil.copy(PROJECT_ROOT / "alembic.ini", folder)

    def add_module(self, name: str, *tables: str, migrations: str = "shared") -> Path:
        """A module with one model for each table."""
        path = self.folder / "app" / name
        path.mkdir()
        (path / "__init__.py").write_text('"""Planted."""\n')
        (path / "module.toml").write_text(f'depends_on = []\nmigrations = "{migrations}"\n')
        models = [MODEL.format(name=table.title().replace("_", ""), table=table) for table in tables]
        (path / "models.py").write_text("".join([MODELS, *models]))
        return path

    def command(self, *arguments: str) -> list[str]:
        """How `kit` is started in there."""
        return [sys.executable, "-m", "app.cli", *arguments]

    def environment(self, **settings: str) -> dict[str, str]:
        """The copy is what is imported; `settings` come on top of its own."""
        found = environment(self.folder, **self.settings | settings) | {"PYTHONPATH": str(self.folder)}
        found.pop("PYTHONDONTWRITEBYTECODE", None)  # the copy is compiled once, not for every command
        return found

    def kit(self, *arguments: str, **settings: str) -> CompletedProcess[str]:
        """Run a `kit` command in the copy to its end."""
        return run(*self.command(*arguments), cwd=self.folder, env=self.environment(**settings))
