"""Migrations: the application's own on this half's database, and SQLite's traps on a scratch timeline."""

import asyncio
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL
from sqlalchemy.schema import CreateIndex, CreateTable

from app.core.configs import PROJECT_ROOT
from app.core.db import Database
from app.core.db.migrate import Migrations, alembic_config, downgrade, upgrade
from app.core.db.migration_env import sync_url
from app.core.db.timelines import Timeline, Timelines
from app.core.exceptions import ConfigError
from tests.core.db.models import ShopModel, Shout


def run(url: URL, *statements: str) -> list[Any]:
    """Run `statements` in one transaction; the rows of the last one."""
    engine = sa.create_engine(sync_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        results = [connection.exec_driver_sql(statement) for statement in statements]
        return list(results[-1].all()) if results[-1].returns_rows else []


def schema(url: URL) -> dict[str, list[str]]:
    """Every table as the statements that would make it, from what the database says of itself."""
    engine = sa.create_engine(sync_url(url), poolclass=sa.NullPool)
    found = sa.MetaData()
    found.reflect(engine)
    return {
        table.name: [
            str(CreateTable(table).compile(engine)),
            *sorted(str(CreateIndex(index).compile(engine)) for index in table.indexes),
        ]
        for table in found.sorted_tables
    }


class TestApplication:
    async def test_the_models_and_the_migrations_agree(self, committed: Database) -> None:
        command.check(alembic_config(committed.engine.url))

    async def test_down_and_up_again_makes_no_difference(self, committed: Database) -> None:
        url = committed.engine.url
        before = schema(url)
        downgrade(url, "base")
        assert list(schema(url)) == ["alembic_version"]
        upgrade(url)
        assert schema(url) == before

    async def test_one_step_back(self, committed: Database) -> None:
        url = committed.engine.url
        before = schema(url)
        downgrade(url)
        assert schema(url) != before
        upgrade(url)
        assert schema(url) == before

    async def test_several_processes_may_migrate_at_once(self, committed: Database) -> None:
        url = committed.engine.url
        before = schema(url)
        downgrade(url, "base")
        address = url.render_as_string(hide_password=False)
        upgrading = [sys.executable, "-m", "alembic", "-x", f"url={address}", "upgrade", "head"]
        processes = [
            await asyncio.create_subprocess_exec(*upgrading, cwd=PROJECT_ROOT, stderr=asyncio.subprocess.PIPE)
            for _ in range(2)
        ]
        async with asyncio.timeout(60):
            for process in processes:
                _, errors = await process.communicate()
                assert process.returncode == 0, errors.decode()
        assert schema(url) == before

    async def test_the_statements_can_be_printed_instead(self, committed: Database) -> None:
        config = alembic_config(committed.engine.url)
        config.output_buffer = io.StringIO()
        command.upgrade(config, "head", sql=True)
        assert "CREATE TABLE core_jobs" in config.output_buffer.getvalue()


@pytest.fixture
def scratch(tmp_path: Path) -> Config:
    """A timeline of its own, empty, on a SQLite file whose path needs care."""
    return scratch_config(tmp_path, ShopModel.metadata)


def scratch_config(folder: Path, metadata: sa.MetaData) -> Config:
    url = URL.create("sqlite+aiosqlite", database=str(folder / "new folder" / "50%(x)s.db"))
    line = Timeline("scratch", "own", folder / "migrations", "alembic_version", metadata, ("shop",))
    return Migrations(url, Timelines(line)).config(line)


def add_revision(scratch: Config, number: int, body: str) -> None:
    """Write revision `number` by hand; `body` is what its upgrade does."""
    before = repr(str(number - 1)) if number > 1 else None
    text = f"import sqlalchemy as sa\nfrom alembic import op\nrevision = '{number}'\ndown_revision = {before}\n"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    folder: Path = scratch.attributes["timeline"].versions
    folder.mkdir(exist_ok=True)
    (folder / f"r{number}.py").write_text(f"{text}def upgrade():\n{lines}def downgrade():\n    pass\n")


PARENT_AND_CHILD = """
op.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY AUTOINCREMENT, name VARCHAR(10), deleted_at DATETIME)")
op.execute("CREATE UNIQUE INDEX uq_parent_name ON parent (name) WHERE deleted_at IS NULL")
op.execute("CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id) ON DELETE CASCADE)")
op.execute("INSERT INTO parent (id, name) VALUES (1, 'a'), (2, 'b'), (9, 'c')")
op.execute("INSERT INTO child VALUES (1, 1), (2, 2)")
op.execute("DELETE FROM parent WHERE id = 9")
"""
REBUILD_PARENT = """
with op.batch_alter_table("parent") as batch:
    batch.alter_column("name", existing_type=sa.String(10), type_=sa.String(20))
"""


class TestSqlite:
    def test_an_autogenerated_revision_runs_as_it_is(self, scratch: Config) -> None:
        command.revision(scratch, "Shop", autogenerate=True)
        command.upgrade(scratch, "head")
        command.check(scratch)
        command.downgrade(scratch, "base")
        assert list(schema(scratch.attributes["url"])) == ["alembic_version"]

    def test_an_autogenerated_revision_does_not_need_the_application(self, scratch: Config) -> None:
        script = command.revision(scratch, "Shop", autogenerate=True)
        assert script is not None
        assert not isinstance(script, list)
        text = Path(script.path).read_text()
        assert "app." not in text
        assert "sa.DateTime(timezone=True)" in text
        assert "postgresql.JSONB()" in text
        assert "sqlite_autoincrement=True" in text

    def test_an_autogenerated_revision_imports_the_types_it_needs(self, tmp_path: Path) -> None:
        metadata = sa.MetaData()
        sa.Table("shop_signs", metadata, sa.Column("word", Shout()))
        scratch = scratch_config(tmp_path, metadata)
        command.revision(scratch, "Signs", autogenerate=True)
        command.upgrade(scratch, "head")
        assert [*schema(scratch.attributes["url"])] == ["alembic_version", "shop_signs"]

    def test_rebuilding_a_parent_keeps_its_children(self, scratch: Config) -> None:
        url = scratch.attributes["url"]
        add_revision(scratch, 1, PARENT_AND_CHILD)
        add_revision(scratch, 2, REBUILD_PARENT)
        command.upgrade(scratch, "head")
        assert run(url, "SELECT id, parent_id FROM child") == [(1, 1), (2, 2)]
        assert "VARCHAR(20)" in run(url, "SELECT sql FROM sqlite_master WHERE name = 'parent'")[0][0]

    def test_rebuilding_a_table_keeps_its_partial_index(self, scratch: Config) -> None:
        add_revision(scratch, 1, PARENT_AND_CHILD)
        add_revision(scratch, 2, REBUILD_PARENT)
        command.upgrade(scratch, "head")
        (index,) = run(scratch.attributes["url"], "SELECT sql FROM sqlite_master WHERE name = 'uq_parent_name'")
        assert index[0].endswith("WHERE deleted_at IS NULL")

    @pytest.mark.parametrize("emptied", ["", 'op.execute("DELETE FROM child")\nop.execute("DELETE FROM parent")\n'])
    def test_rebuilding_a_table_gives_no_id_a_second_time(self, scratch: Config, emptied: str) -> None:
        url = scratch.attributes["url"]
        add_revision(scratch, 1, PARENT_AND_CHILD + emptied)
        command.upgrade(scratch, "head")
        add_revision(scratch, 2, REBUILD_PARENT)
        command.upgrade(scratch, "head")
        assert run(url, "INSERT INTO parent (name) VALUES ('new') RETURNING id") == [(10,)]

    def test_a_reference_left_without_its_row_undoes_the_migration(self, scratch: Config) -> None:
        url = scratch.attributes["url"]
        add_revision(scratch, 1, PARENT_AND_CHILD)
        command.upgrade(scratch, "head")
        before = schema(url)
        add_revision(scratch, 2, f'{REBUILD_PARENT}\nop.execute("DELETE FROM parent WHERE id = 1")')
        with pytest.raises(ConfigError, match=r"references without their row: child \(refers to parent\)"):
            command.upgrade(scratch, "head")
        assert schema(url) == before
        assert run(url, "SELECT version_num FROM alembic_version") == [("1",)]
        assert run(url, "SELECT id FROM parent") == [(1,), (2,)]

    def test_a_migration_that_fails_half_way_changes_nothing(self, scratch: Config) -> None:
        url = scratch.attributes["url"]
        add_revision(scratch, 1, PARENT_AND_CHILD)
        command.upgrade(scratch, "head")
        before = schema(url)
        add_revision(scratch, 2, 'op.execute("CREATE TABLE half (id INTEGER)")\nop.execute("DROP TABLE absent")')
        with pytest.raises(sa.exc.OperationalError, match="no such table: absent"):
            command.upgrade(scratch, "head")
        assert schema(url) == before
