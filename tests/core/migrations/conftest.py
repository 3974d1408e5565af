"""A module `shop` of one table, whose models change from step to step, on this half's database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from sqlalchemy.engine import URL
from sqlalchemy.schema import SchemaItem

from app.core.db.base import NAMING_CONVENTION
from app.core.migrations.env import sync_url
from app.core.migrations.timelines import Timeline, Timelines
from tests.conftest import backend
from tests.core.migrations.timelines import tables_of
from tools.migrations.developer import DeveloperMigrations as Migrations


class Unformatted(Migrations):
    """Starts no formatter for what it writes."""

    def config(self, line: Timeline, **attributes: Any) -> Config:
        config = super().config(line, **attributes)
        config.file_config.remove_section("post_write_hooks")
        return config


def things(*items: SchemaItem, name: str = "shop_things", metadata: sa.MetaData | None = None) -> sa.MetaData:
    """Models with one table: an id and `items`."""
    metadata = sa.MetaData(naming_convention=NAMING_CONVENTION) if metadata is None else metadata
    sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True), *items, sqlite_autoincrement=True)
    return metadata


class Shop:
    """The timeline of the module on one database."""

    def __init__(self, url: URL, folder: Path) -> None:
        self.url = url
        self.versions = folder / "versions"
        self.versions.mkdir()

    def with_models(self, metadata: sa.MetaData) -> Migrations:
        line = Timeline("shop", "own", self.versions, "alembic_version_shop", metadata, ("shop",))
        return Unformatted(self.url, Timelines(line))

    def step(self, metadata: sa.MetaData) -> str:
        """Write what changed, run it, and see that nothing is left; the text of the revision."""
        migrations = self.with_models(metadata)
        (path,) = migrations.revision("step")
        migrations.upgrade()
        assert [str(fault) for fault in migrations.check()] == []
        return path.read_text()

    def faults(self, metadata: sa.MetaData) -> list[str]:
        """What a check says of these models."""
        return [fault.what for fault in self.with_models(metadata).check()]

    def down_and_up(self, metadata: sa.MetaData) -> None:
        """Undo everything, and do it again."""
        migrations = self.with_models(metadata)
        migrations.downgrade("base")
        assert not {name for name in tables_of(self.url) if name.startswith("shop")}
        migrations.upgrade()
        assert [str(fault) for fault in migrations.check()] == []

    def run(self, *statements: str) -> list[Any]:
        """Run `statements` in one transaction; the rows of the last one."""
        engine = sa.create_engine(sync_url(self.url), poolclass=sa.NullPool)
        with engine.begin() as connection:
            results = [connection.exec_driver_sql(statement) for statement in statements]
            return list(results[-1].all()) if results[-1].returns_rows else []


@pytest.fixture
def shop(template: URL, tmp_path: Path) -> Iterator[Shop]:
    """The module on a database of its own."""
    url = backend.copy()
    yield Shop(url, tmp_path)
    backend.drop(url)


@pytest.fixture
def is_postgresql(shop: Shop) -> bool:
    """Which half of the suite runs."""
    return shop.url.get_backend_name() == "postgresql"
