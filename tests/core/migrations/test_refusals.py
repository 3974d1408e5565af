"""What a service refuses to run by the source of a revision, without the reader of tools/."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from app.core.configs import PROJECT_ROOT
from app.core.db import Database
from app.core.migrations.migrate import Migrations
from app.core.migrations.timelines import MigrationError, Timelines
from tests.core.migrations.timelines import add_revision, mark, shared, tables_of, timeline

pytestmark = pytest.mark.once

COLUMN = "sa.Column('u', sa.Integer, sa.ForeignKey('auth_users.id'))"


@pytest.fixture
def planted(tmp_path: Path) -> Migrations:
    """A timeline `widgets` beside the shared one; no database is asked."""
    lines = Timelines(shared(tmp_path), timeline(tmp_path, "widgets"))
    return Migrations(URL.create("sqlite", database="nowhere"), lines)


def refused(planted: Migrations) -> list[str]:
    return [fault.what for fault in planted.revision_faults(planted.timelines["widgets"]) if fault.blocking]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("drop_table on", "op.drop_table('auth_users')"),
        ("create_table on", "op.create_table('auth_widgets', sa.Column('id', sa.Integer))"),
        ("add_column on", "op.add_column('auth_users', sa.Column('widget', sa.Integer))"),
        ("add_column on", "op.add_column(table_name='auth_users', column=sa.Column('widget', sa.Integer))"),
        ("rename_table on", "op.rename_table('widgets_a', 'auth_widgets')"),
        ("create_index on", "op.create_index('ix', 'auth_users', ['id'])"),
        ("drop_index on", "op.drop_index('ix', table_name='auth_users')"),
        ("drop_index on", "op.drop_index('ix_auth_sessions_user_id_id')"),
        ("alter_column on", "with op.batch_alter_table('auth_users') as b:\n    b.alter_column('id', nullable=True)"),
        ("drop_constraint on", "with op.batch_alter_table('auth_users') as b:\n    b.drop_constraint('pk')"),
        (
            "drop_constraint on",
            "with op.batch_alter_table('auth_users') as b:\n    b.drop_constraint('pk')\n"
            "with op.batch_alter_table('widgets_a') as b:\n    b.drop_constraint('pk')",
        ),
        (
            "drop_constraint on",
            "with op.batch_alter_table(table_name='auth_users') as b:\n    b.drop_constraint('pk')",
        ),
        ("drop_table on", "if True:\n    op.drop_table('auth_users')"),
        ("drop_table on", "def gone():\n    op.drop_table('auth_users')\ngone()"),
        ("create_table has a foreign key to", f"op.create_table('widgets_b', {COLUMN})"),
        ("add_column has a foreign key to", f"op.add_column('widgets_a', {COLUMN})"),
        (
            "create_foreign_key has a foreign key to",
            "op.create_foreign_key('fk', 'widgets_a', 'auth_users', ['u'], ['id'])",
        ),
        (
            "create_foreign_key has a foreign key to",
            "with op.batch_alter_table('widgets_a') as b:\n    b.create_foreign_key('fk', 'auth_users', ['u'], ['id'])",
        ),
    ],
)
@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_an_operation_on_anothers_table(planted: Migrations, operation: str, code: str, down: bool) -> None:
    mark(add_revision(planted.timelines["widgets"], 1, "pass" if down else code, code if down else "pass"))
    (what,) = refused(planted)
    assert what.replace(" on widgets_a", "").replace(" on widgets_b", "").startswith(f"{operation} auth_")
    assert what.endswith("which belongs to auth (timeline shared)")


@pytest.mark.parametrize(
    ("lost", "code"),
    [
        ("drops widgets_a", "op.drop_table('widgets_a')"),
        ("drops widgets_a.note", "op.drop_column('widgets_a', 'note')"),
        ("drops widgets_a.note", "with op.batch_alter_table('widgets_a') as b:\n    b.drop_column('note')"),
    ],
)
def test_loss_of_data_without_a_reason(planted: Migrations, lost: str, code: str) -> None:
    path = add_revision(planted.timelines["widgets"], 1, code)
    assert refused(planted) == [f"loses data: it {lost}"]
    mark(path)
    assert refused(planted) == []


def test_what_is_its_own_is_let_through(planted: Migrations) -> None:
    code = "op.create_table('widgets_a', sa.Column('j', sa.Integer, sa.ForeignKey('core_jobs.id')))"
    add_revision(
        planted.timelines["widgets"], 1, f"{code}\nfor name in ('a', 'b'):\n    op.create_index(name, name, [])"
    )
    assert refused(planted) == []


def test_it_is_refused_before_anything_has_run(committed: Database, tmp_path: Path) -> None:
    line = timeline(tmp_path, "widgets")
    migrations = Migrations(committed.engine.url, Timelines(shared(tmp_path), line))
    add_revision(line, 1, "op.create_table('widgets_a', sa.Column('id', sa.Integer))", "op.drop_table('widgets_a')")
    path = add_revision(line, 2, "op.drop_table('widgets_a')")
    before = tables_of(migrations.url)
    with pytest.raises(MigrationError, match=r"widgets widgets2: loses data: it drops widgets_a\. Say why"):
        migrations.upgrade()
    assert tables_of(migrations.url) == before
    path.unlink()
    migrations.upgrade()
    assert [lost for _, lost in migrations.behind("-1", "widgets")] == [["drops widgets_a"]]


def test_a_checkout_without_development_tools_migrates() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['grimp', 'ruff', 'sqlglot']))\n"
        "from tools.migrations.developer import scratch_database\n"
        "with scratch_database() as migrations:\n"
        "    assert migrations.upgrade()\n"
        "    assert {fault.kind for fault in migrations.check()} == {'unread'}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
