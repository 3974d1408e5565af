"""Every timeline keeps to its own tables, on this half's database."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa

from app.core.db import Database
from app.core.exceptions import ConfigError
from app.core.migrations.timelines import (
    MigrationError,
    Timeline,
    Timelines,
    installed_timelines,
    metadata_of,
    timelines_of,
)
from app.core.models import metadata as application
from app.core.modules import discover, installed_modules
from tests.core.migrations.timelines import mark, migrations, shared, tables_of, timeline
from tools.migrations.developer import DeveloperMigrations as Migrations


def owner(timelines: Timelines, table: str) -> str | None:
    found = timelines.owner(table)
    return found.name if found else None


class TestOwnership:
    def test_the_longest_name_wins(self, tmp_path: Path) -> None:
        lines = Timelines(shared(tmp_path, "order"), timeline(tmp_path, "order_items"))
        assert owner(lines, "order_lines") == "shared"
        assert owner(lines, "order_items_notes") == "order_items"

    def test_a_name_that_only_begins_alike_is_no_prefix(self, tmp_path: Path) -> None:
        assert owner(Timelines(timeline(tmp_path, "order")), "orders_lines") is None

    def test_a_package_owns_the_tables_it_declares_whatever_they_are_called(self, tmp_path: Path) -> None:
        lines = Timelines(timeline(tmp_path, "order"), timeline(tmp_path, "shop", "ratings", kind="external"))
        assert owner(lines, "ratings") == "shop"
        assert owner(lines, "shop_old") == "shop"
        assert owner(lines, "shopping_old") is None

    def test_a_package_cannot_take_a_declared_table_away(self, tmp_path: Path) -> None:
        thief = timeline(tmp_path, "thief", "order_lines", kind="external")
        lines = Timelines(timeline(tmp_path, "order", "order_lines"), thief)
        assert owner(lines, "order_lines") == "order"

    def test_version_tables_are_nobodys(self, tmp_path: Path) -> None:
        thief = timeline(tmp_path, "thief", "alembic_version", "alembic_version_order", kind="external")
        lines = Timelines(timeline(tmp_path, "order"), thief)
        assert owner(lines, "alembic_version") is owner(lines, "alembic_version_order") is None

    def test_two_of_one_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MigrationError, match="two timelines of one name"):
            Timelines(timeline(tmp_path, "shop"), timeline(tmp_path, "shop"))

    def test_an_unknown_name_is_answered_with_the_known_ones(self, tmp_path: Path) -> None:
        with pytest.raises(MigrationError, match="no timeline nope; there are shared, shop"):
            Timelines(shared(tmp_path), timeline(tmp_path, "shop")).one("nope")

    def test_the_installed_ones_begin_with_the_shared_one(self) -> None:
        first, *_ = installed_timelines().values()
        internal = {module.short_name for module in installed_modules() if module.migrations == "shared"}
        assert (first.name, first.version_table) == ("shared", "alembic_version")
        assert {"core", "auth"} <= set(first.owners) <= {"core", *internal}


class TestMetadata:
    def test_a_declarative_base_is_found(self) -> None:
        models = ModuleType("models")
        models.Base = type("Base", (sa.orm.DeclarativeBase,), {})  # type: ignore[attr-defined]  # made here
        assert metadata_of(models) is models.Base.metadata

    def test_two_are_refused(self) -> None:
        models = ModuleType("models")
        models.one, models.two = sa.MetaData(), sa.MetaData()  # type: ignore[attr-defined]  # made here
        with pytest.raises(ConfigError, match="several MetaData"):
            metadata_of(models)


REVISION = """
from alembic import op
import sqlalchemy as sa

revision = "aaaa"
down_revision = None


def upgrade() -> None:
    op.create_table("kit_reviews", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("word", sa.String()))
    op.create_table("ratings", sa.Column("id", sa.Integer(), primary_key=True))


def downgrade() -> None:
    op.drop_table("ratings")
    op.drop_table("kit_reviews")
"""
MODELS = """
from sqlalchemy import Column, Integer, String
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    pass


class Review(Base):
    __tablename__ = "kit_reviews"
    id = Column(Integer, primary_key=True)
    word = Column(String)


class Rating(Base):
    __tablename__ = "ratings"
    id = Column(Integer, primary_key=True)
"""


class TestPackage:
    """An installed package, with revisions as other kits generate them."""

    @pytest.fixture
    def installed(self, committed: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migrations]:
        package = tmp_path / "kit_reviews"
        (package / "migrations" / "versions").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "module.toml").write_text('entrypoint = "kit_reviews:register"\n')
        (package / "models.py").write_text(MODELS)
        (package / "migrations" / "env.py").write_text("raise RuntimeError('our environment runs its revisions')\n")
        (package / "migrations" / "versions" / "first.py").write_text(REVISION)
        monkeypatch.syspath_prepend(tmp_path)
        yield Migrations(committed.engine.url, timelines_of(discover(["app.*", "kit_reviews"]), application))
        for name in ("kit_reviews", "kit_reviews.models"):
            sys.modules.pop(name, None)

    def test_it_is_last_and_keeps_to_its_own_tables(self, installed: Migrations) -> None:
        assert list(installed.timelines)[-1] == "kit_reviews"
        before = tables_of(installed.url)
        assert [info.revision for info in installed.upgrade()] == ["aaaa"]
        assert tables_of(installed.url) - before == {"kit_reviews", "ratings", "alembic_version_kit_reviews"}
        assert installed.check("kit_reviews") == []
        assert installed.revision("none of theirs") == []

    def test_its_tables_refer_to_no_others(self, installed: Migrations, tmp_path: Path) -> None:
        leading = MODELS.replace("import Column", "import Column, ForeignKey")
        leading += '    user_id = Column(Integer, ForeignKey("auth_users.id"))\n'
        (tmp_path / "kit_reviews" / "models.py").write_text(leading)
        sys.modules.pop("kit_reviews.models")
        with pytest.raises(ConfigError, match=r"kit_reviews: ratings\.user_id has a foreign key to auth_users, which"):
            timelines_of(discover(["kit_reviews"]), application)

    def test_it_is_removed_without_touching_another_table(self, installed: Migrations) -> None:
        before = tables_of(installed.url)
        installed.upgrade()
        installed.downgrade("base", "kit_reviews")
        assert tables_of(installed.url) - before == {"alembic_version_kit_reviews"}

    def test_what_its_revisions_drop_needs_no_reason(self, installed: Migrations) -> None:
        text = 'from alembic import op\nrevision, down_revision = "bbbb", "aaaa"\n'
        body = 'def upgrade(): op.drop_table("ratings")\ndef downgrade(): pass\n'
        (installed.timelines["kit_reviews"].versions / "second.py").write_text(text + body)
        installed.upgrade()
        assert {fault.kind: fault.blocking for fault in installed.check("kit_reviews")} == {
            "destructive": False,
            "difference": False,
        }


MODULE = "widgets"
TABLES = ("widgets_events", "widgets_notes")


class TestAutogenerate:
    """A module comes, goes, and loses a model: what is written for it, and what is not."""

    @pytest.fixture(params=["shared", "own", "external"])
    def kind(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def installed(self, folder: Path, kind: str, *tables: str) -> list[Timeline]:
        """The service with the module, which declares `tables`."""
        if kind == "shared":
            return [shared(folder, MODULE, tables=tables)]
        return [shared(folder), timeline(folder, MODULE, *tables, kind="own" if kind == "own" else "external")]

    @pytest.fixture
    def grown(self, kind: str, committed: Database, tmp_path: Path) -> Migrations:
        """The service with the module, its tables made."""
        found = migrations(committed.engine.url, *self.installed(tmp_path, kind, *TABLES))
        found.revision("widgets", MODULE if kind == "external" else None)
        found.upgrade()
        return found

    def test_a_new_module_gets_its_tables_and_no_other_revision(self, grown: Migrations, kind: str) -> None:
        assert tables_of(grown.url) >= set(TABLES)
        assert (f"alembic_version_{MODULE}" in tables_of(grown.url)) == (kind != "shared")
        assert [info.message for info in grown.history() if info.message == "widgets"] == ["widgets"]
        for name in grown.timelines:
            assert grown.revision("again", name) == []

    def test_taking_the_module_out_drops_nothing(self, grown: Migrations, kind: str, tmp_path: Path) -> None:
        before = tables_of(grown.url)
        rest = migrations(grown.url, shared(tmp_path))
        assert rest.revision("without widgets") == []
        assert rest.upgrade() == []
        assert tables_of(grown.url) == before
        versions = set() if kind == "shared" else {f"alembic_version_{MODULE}"}
        assert set(TABLES) | versions <= set(rest.orphans())
        assert not {table for table in rest.orphans() if table.startswith(("core_", "auth_"))}

    def test_deleting_a_model_drops_its_table_alone(self, grown: Migrations, kind: str, tmp_path: Path) -> None:
        before = tables_of(grown.url)
        smaller = migrations(grown.url, *self.installed(tmp_path, kind, TABLES[0]))
        (path,) = smaller.revision("without notes", MODULE if kind == "external" else None)
        assert path.read_text().count("op.drop_table") == 1
        assert "# Loses data: drops widgets_notes." in path.read_text()
        if kind != "external":  # what a package drops of its own is its own business
            with pytest.raises(MigrationError, match=r"loses data: it drops widgets_notes\. Say why .* destructive ="):
                smaller.upgrade()
            mark(path)
        smaller.upgrade()
        assert before - tables_of(grown.url) == {"widgets_notes"}
        assert [fault for fault in smaller.check() if fault.blocking] == []

    def test_down_to_the_ground_leaves_the_tables_of_others(self, grown: Migrations, kind: str) -> None:
        if kind == "shared":
            grown.downgrade("-1")
        else:
            with pytest.raises(MigrationError, match="there are several timelines: name one"):
                grown.downgrade("-1")
            grown.downgrade("base", MODULE)
        assert not set(TABLES) & tables_of(grown.url)
        assert {"core_jobs", "auth_users"} <= tables_of(grown.url)
        grown.upgrade()
        assert set(TABLES) <= tables_of(grown.url)

    def test_all_go_back_the_last_first(self, grown: Migrations) -> None:
        undone = [(info.timeline, info.revision) for info, _ in grown.behind("base")]
        assert undone == [(info.timeline, info.revision) for info in reversed(grown.history())]
        grown.downgrade("base")
        assert not {"core_jobs", "auth_users", *TABLES} & tables_of(grown.url)
        assert grown.behind("base") == []
