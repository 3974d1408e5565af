"""Timelines for tests: tables and revisions of modules that exist nowhere else."""

import shutil
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import URL

from app.core.configs import PROJECT_ROOT
from app.core.migrations.env import sync_url
from app.core.migrations.timelines import Timeline, Timelines
from app.core.models import metadata as application
from tools.migrations.developer import DeveloperMigrations as Migrations

OWN = ("core", "auth")


def shared(folder: Path, *modules: str, tables: tuple[str, ...] = ()) -> Timeline:
    """A copy of the shared timeline with core, auth and `modules`, which declare `tables`."""
    versions = folder / "migrations" / "versions"
    if not versions.is_dir():
        shutil.copytree(PROJECT_ROOT / "migrations" / "versions", versions)
    metadata = sa.MetaData()
    for table in application.tables.values():
        if table.name.startswith(tuple(f"{name}_" for name in OWN)):
            table.to_metadata(metadata)
    declare(metadata, *tables)
    return Timeline("shared", "shared", versions, "alembic_version", metadata, (*OWN, *modules))


def timeline(folder: Path, name: str, *tables: str, kind: Literal["own", "external"] = "own") -> Timeline:
    """The own timeline of a module, or of a package, that declares `tables`."""
    versions = folder / name / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    return Timeline(name, kind, versions, f"alembic_version_{name}", declare(sa.MetaData(), *tables), (name,))


def declare(metadata: sa.MetaData, *tables: str) -> sa.MetaData:
    """Add tables with an id and a note each."""
    for name in tables:
        sa.Table(
            name, metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("note", sa.String(20), index=True)
        )
    return metadata


def migrations(url: URL, *timelines: Timeline) -> Migrations:
    """These timelines on that database."""
    return Migrations(url, Timelines(*timelines))


def add_revision(line: Timeline, number: int, up: str, down: str = "pass", *, after: int | None = None) -> Path:
    """Write the timeline's revision `number` by hand, on top of the one before."""
    parent = number - 1 if after is None else after
    text = [
        "import sqlalchemy as sa",
        "from alembic import op",
        f"revision = '{line.name}{number}'",
        f"down_revision = {f'{line.name}{parent}' if parent else None!r}",
        *("def upgrade():", *(f"    {line}" for line in up.splitlines())),
        *("def downgrade():", *(f"    {line}" for line in down.splitlines())),
    ]
    path = line.versions / f"{line.name}{number}.py"
    path.write_text("\n".join(text) + "\n")
    return path


def mark(path: Path, reason: str = "nobody used it") -> None:
    """Say in the revision at `path` why it may lose data."""
    path.write_text(f"{path.read_text()}\ndestructive = {reason!r}\n")


def tables_of(url: URL) -> set[str]:
    """The names of all tables there."""
    engine = sa.create_engine(sync_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return set(sa.inspect(connection).get_table_names())
