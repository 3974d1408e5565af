"""What `kit migrate preview` prints."""

from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from app.core.db import Database
from app.core.migrations.preview import preview
from app.core.migrations.timelines import MigrationError
from tests.core.migrations.test_migrate import schema
from tests.core.migrations.timelines import add_revision, migrations, shared, timeline
from tools.migrations.developer import DeveloperMigrations as Migrations

MAKE = "op.create_table('widgets_a', sa.Column('id', sa.Integer, primary_key=True), sa.Column('note', sa.String(20)))"
WIDEN = """
with op.batch_alter_table('widgets_a') as batch:
    batch.alter_column('note', type_=sa.Text(), existing_type=sa.String(20))
""".strip()


@pytest.fixture
def widgets(committed: Database, tmp_path: Path) -> Migrations:
    """The service up to date, and a module `widgets` whose timeline is empty."""
    return migrations(committed.engine.url, shared(tmp_path), timeline(tmp_path, "widgets"))


def test_at_the_head_there_is_nothing(widgets: Migrations) -> None:
    assert preview(widgets) == ""


def test_what_is_pending_is_printed_and_not_run(widgets: Migrations) -> None:
    add_revision(widgets.timelines["widgets"], 1, MAKE)
    before = schema(widgets.url)
    sql = preview(widgets)
    assert "CREATE TABLE widgets_a" in sql
    assert "INSERT INTO alembic_version_widgets" in sql
    assert "auth_users" not in sql
    assert sql.count("BEGIN;") == sql.count("COMMIT;") == 1
    assert schema(widgets.url) == before


def test_what_has_run_is_left_out(widgets: Migrations) -> None:
    line = widgets.timelines["widgets"]
    add_revision(line, 1, MAKE)
    widgets.upgrade()
    add_revision(line, 2, WIDEN)
    sql = preview(widgets)
    assert "CREATE TABLE widgets_a" not in sql
    assert "-- Running upgrade widgets1 -> widgets2" in sql
    if widgets.url.get_backend_name() == "sqlite":
        assert "ALTER TABLE _alembic_tmp_widgets_a RENAME TO widgets_a;" in sql
    else:
        assert "ALTER TABLE widgets_a ALTER COLUMN note TYPE TEXT;" in sql
    widgets.upgrade()
    assert preview(widgets) == ""


def test_values_are_written_out(widgets: Migrations) -> None:
    code = (
        f"{MAKE}\nop.execute(sa.text('INSERT INTO widgets_a (id, note) VALUES (1, :note)').bindparams(note=\"it's\"))"
    )
    add_revision(widgets.timelines["widgets"], 1, code)
    assert "VALUES (1, 'it''s')" in preview(widgets)


def test_a_revision_that_needs_rows_is_run_on_a_copy_or_refused(widgets: Migrations) -> None:
    add_revision(widgets.timelines["widgets"], 1, f"{MAKE}\nop.get_bind().execute(sa.text('SELECT 1')).one()")
    if widgets.url.get_backend_name() == "sqlite":
        assert "CREATE TABLE widgets_a" in preview(widgets)
    else:
        with pytest.raises(MigrationError, match="timeline widgets: a pending revision needs the database to run"):
            preview(widgets)


def test_a_revision_that_fails_is_named(widgets: Migrations, capsys: pytest.CaptureFixture[str]) -> None:
    add_revision(widgets.timelines["widgets"], 1, f"{MAKE}\nprint('hello')\nraise RuntimeError('no')")
    with pytest.raises(MigrationError, match=r"timeline widgets: .*: RuntimeError: no"):
        preview(widgets)
    assert capsys.readouterr().out == ""


def test_two_heads_are_refused_with_what_joins_them(widgets: Migrations) -> None:
    line = widgets.timelines["widgets"]
    add_revision(line, 1, MAKE)
    add_revision(line, 2, "pass")
    add_revision(line, 3, "pass", after=1)
    with pytest.raises(MigrationError, match=r"^timeline widgets has several heads: .* kit migrate merge --timeline"):
        preview(widgets)


def test_two_heads_that_are_joined_start_from_both(widgets: Migrations) -> None:
    line = widgets.timelines["widgets"]
    add_revision(line, 1, "pass")
    add_revision(line, 2, "pass")
    add_revision(line, 3, MAKE, after=1)
    widgets.upgrade("widgets2", "widgets")
    widgets.upgrade("widgets3", "widgets")
    widgets.merge()
    sql = preview(widgets)
    assert "widgets_a" not in sql.replace("alembic_version_widgets", "")
    assert "DELETE FROM alembic_version_widgets" in sql


def test_a_database_that_is_not_there_yet_is_not_made(tmp_path: Path, widgets: Migrations) -> None:
    new = Migrations(URL.create("sqlite+aiosqlite", database=str(tmp_path / "new" / "app.db")), widgets.timelines)
    assert "CREATE TABLE core_jobs" in preview(new)
    assert [state.current for state in new.status()] == [(), ()]
    assert not (tmp_path / "new").exists()
