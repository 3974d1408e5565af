"""What `kit migrate check` finds, and what it lets through."""

import textwrap
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from app.core.db import Database
from app.core.migrations.refusals import Fault
from app.core.migrations.timelines import MigrationError, Timeline, Timelines
from tests.core.migrations.timelines import add_revision, mark, migrations, shared, tables_of, timeline
from tools.migrations.commands import verdict
from tools.migrations.developer import DeveloperMigrations as Migrations
from tools.migrations.effects import read_sql

MAKE = "op.create_table('widgets_a', sa.Column('id', sa.Integer), sa.Column('note', sa.String(20)))"


@pytest.fixture
def planted(tmp_path: Path) -> "Planted":
    """A module `widgets` whose revisions are read, no database being asked."""
    return Planted(timeline(tmp_path, "widgets"), shared(tmp_path))


class Planted:
    """A timeline beside the shared one, and the faults of its revisions."""

    def __init__(self, line: Timeline, others: Timeline) -> None:
        self.line = line
        self.migrations = Migrations(URL.create("sqlite", database="nowhere"), Timelines(others, line))

    def faults(self, *kinds: str) -> list[Fault]:
        return [fault for fault in self.migrations.revision_faults(self.line) if fault.kind in kinds]


@pytest.fixture
def widgets(committed: Database, tmp_path: Path) -> Migrations:
    """The service and a module `widgets` whose timeline is empty."""
    return migrations(committed.engine.url, shared(tmp_path), timeline(tmp_path, "widgets"))


def faults(found: Migrations, *kinds: str) -> list[Fault]:
    return [fault for fault in found.check() if fault.kind in kinds]


class TestOwnership:
    @pytest.mark.parametrize(
        ("operation", "code"),
        [
            ("drop_table", "op.drop_table('auth_users')"),
            ("create_table", "op.create_table('auth_widgets', sa.Column('id', sa.Integer))"),
            ("add_column", "op.add_column('auth_users', sa.Column('widget', sa.Integer))"),
            ("rename_table", "op.rename_table('widgets_a', 'auth_widgets')"),
            ("create_index", "op.create_index('ix', 'auth_users', ['id'])"),
            ("drop_constraint", "op.drop_constraint('pk_auth_users', 'auth_users')"),
            ("create_foreign_key", "op.create_foreign_key('fk', 'auth_users', 'widgets_a', ['id'], ['id'])"),
            ("bulk_insert", "op.bulk_insert(sa.table('auth_users', sa.column('id')), [{'id': 1}])"),
            ("alter_column", "with op.batch_alter_table('auth_users') as b:\n    b.alter_column('id', nullable=True)"),
            ("drop_column", "with op.batch_alter_table('auth_users') as b:\n    b.drop_column('email')"),
            ("drop_table", "for name in ('users', 'sessions'):\n    op.drop_table(f'auth_{name}')"),
            ("execute DROP TABLE", "op.execute('DROP TABLE IF EXISTS public.\"auth_users\" CASCADE')"),
            ("execute UPDATE", "op.execute(sa.update(sa.table('auth_users', sa.column('id'))).values(id=1))"),
            ("execute DELETE FROM", "op.get_bind().execute(sa.text('DELETE FROM auth_users'))"),
            ("execute INSERT INTO", "op.get_bind().exec_driver_sql('INSERT INTO auth_users VALUES (1)')"),
            ("execute DELETE FROM", "op.get_context().execute('DELETE FROM auth_users')"),
            ("drop_index", "op.drop_index('ix_auth_sessions_user_id_id')"),
            ("execute DROP INDEX", "op.execute('DROP INDEX IF EXISTS ix_auth_sessions_user_id_id')"),
        ],
    )
    @pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
    @pytest.mark.once
    def test_an_operation_on_anothers_table_is_named(
        self, planted: Planted, operation: str, code: str, down: bool
    ) -> None:
        add_revision(planted.line, 1, "pass" if down else code, code if down else "pass")
        fault = planted.faults("owner")[0]
        assert fault.revision == "widgets1"
        assert fault.what.startswith(f"{operation} on auth_")
        assert fault.what.endswith("which belongs to auth (timeline shared)")

    @pytest.mark.parametrize(
        "code",
        [
            "op.create_table('widgets_a', sa.Column('u', sa.Integer, sa.ForeignKey('{}.id')))",
            "op.create_table('widgets_a', sa.Column('u', sa.Integer), sa.ForeignKeyConstraint(['u'], ['{}.id']))",
            "op.add_column('widgets_a', sa.Column('u', sa.Integer, sa.ForeignKey('{}.id')))",
            "op.create_foreign_key('fk', 'widgets_a', '{}', ['u'], ['id'])",
            "with op.batch_alter_table('widgets_a') as b:\n    b.create_foreign_key('fk', '{}', ['u'], ['id'])",
        ],
    )
    @pytest.mark.once
    def test_a_foreign_key_to_anothers_table_is_named(self, planted: Planted, code: str) -> None:
        path = add_revision(planted.line, 1, code.format("auth_users"))
        (fault,) = planted.faults("owner")
        assert " on widgets_a has a foreign key to auth_users, which belongs to auth (timeline shared)" in fault.what
        for free in ("core_jobs", "widgets_b"):
            path.unlink()
            path = add_revision(planted.line, 1, code.format(free))
            assert planted.faults("owner") == []

    @pytest.mark.once
    def test_what_a_revision_prints_is_not_an_answer(
        self, planted: Planted, capsys: pytest.CaptureFixture[str]
    ) -> None:
        add_revision(planted.line, 1, "print('hello')")
        planted.faults()
        assert capsys.readouterr().out == ""

    def test_an_upgrade_refuses_it_before_anything_has_run(self, widgets: Migrations) -> None:
        line = widgets.timelines["widgets"]
        add_revision(line, 1, MAKE)
        mark(add_revision(line, 2, "op.drop_table('auth_users')"))
        before = tables_of(widgets.url)
        with pytest.raises(MigrationError, match=r"widgets widgets2: drop_table on auth_users, which belongs to auth"):
            widgets.upgrade()
        assert tables_of(widgets.url) == before

    @pytest.mark.once
    def test_a_table_of_no_module_must_be_the_timelines_own_work(self, planted: Planted) -> None:
        add_revision(planted.line, 1, "op.create_table('loose', sa.Column('id', sa.Integer))")
        mark(add_revision(planted.line, 2, "op.drop_table('loose')"))
        assert planted.faults("owner", "destructive") == []
        mark(add_revision(planted.line, 3, "op.drop_table('stray')"))
        (fault,) = planted.faults("owner")
        assert fault.what == "drop_table on stray, which belongs to no installed module"

    @pytest.mark.once
    def test_reading_and_changing_what_is_ones_own_is_no_fault(self, planted: Planted) -> None:
        body = f"""
        made = {MAKE}
        op.bulk_insert(made, [{{"id": 1}}])
        op.create_index("ix_widgets_a_id", "widgets_a", ["id"])
        op.drop_index("ix_widgets_a_id")
        bind = op.get_bind()
        for row in bind.execute(sa.text("SELECT id FROM auth_users")).mappings():
            op.execute(f"UPDATE widgets_a SET note = '{{row['id']}}'")
        assert bind.scalar(sa.text("SELECT 1")) is None
        """
        add_revision(planted.line, 1, textwrap.dedent(body).strip())
        assert planted.faults("owner", "destructive", "unread") == []

    def test_a_package_must_not_name_its_tables_like_a_module(self, committed: Database, tmp_path: Path) -> None:
        package = timeline(tmp_path, "ratings", "auth_ratings", kind="external")
        (fault,) = faults(migrations(committed.engine.url, shared(tmp_path), package), "model")
        assert str(fault).startswith("ratings: its model's table auth_ratings is named like those of auth. Call it")


class TestLossOfData:
    @pytest.mark.parametrize(
        ("lost", "code"),
        [
            ("drops widgets_a", "op.drop_table('widgets_a')"),
            ("drops widgets_a.note", "op.drop_column('widgets_a', 'note')"),
            ("drops widgets_a.note", "with op.batch_alter_table('widgets_a') as b:\n    b.drop_column('note')"),
            (
                "turns widgets_a.note",
                "op.alter_column('widgets_a', 'note', existing_type=sa.Text(), type_=sa.String(9))",
            ),
            ("changes the type", "op.alter_column('widgets_a', 'note', type_=sa.String(9))"),
            ("drops a column", "op.execute('ALTER TABLE widgets_a DROP COLUMN note')"),
            ("empties widgets_a", "op.execute('TRUNCATE widgets_a')"),
            ("empties widgets_a", "op.execute('DELETE FROM widgets_a')"),
        ],
    )
    @pytest.mark.once
    def test_it_needs_a_reason(self, planted: Planted, lost: str, code: str) -> None:
        path = add_revision(planted.line, 1, code)
        (fault,) = planted.faults("destructive")
        assert f"loses data: it {lost}" in fault.what
        mark(path, " ")
        assert planted.faults("destructive") == [fault]
        mark(path)
        assert planted.faults("destructive") == []

    @pytest.mark.parametrize(
        ("old", "new", "narrower"),
        [
            (sa.String(10), sa.String(20), False),
            (sa.String(20), sa.String(10), True),
            (sa.String(20), sa.Text(), False),
            (sa.Integer(), sa.BigInteger(), False),
            (sa.BigInteger(), sa.Integer(), True),
            (sa.Integer(), sa.SmallInteger(), True),
            (sa.Numeric(10, 2), sa.Numeric(12, 2), False),
            (sa.Numeric(10, 2), sa.Numeric(10, 0), True),
            (sa.String(20), sa.Integer(), True),
            (sa.Integer(), sa.Text(), False),
            (sa.DateTime(), sa.DateTime(timezone=True), False),
            (sa.DateTime(), sa.Date(), True),
        ],
        ids=str,
    )
    @pytest.mark.once
    def test_a_type_that_holds_less_is_a_loss(
        self, planted: Planted, old: sa.types.TypeEngine[object], new: sa.types.TypeEngine[object], narrower: bool
    ) -> None:
        code = f"op.alter_column('widgets_a', 'note', existing_type=sa.{old!r}, type_=sa.{new!r})"
        add_revision(planted.line, 1, code)
        assert bool(planted.faults("destructive")) is narrower

    def test_going_back_needs_none(self, widgets: Migrations) -> None:
        add_revision(widgets.timelines["widgets"], 1, MAKE, "op.drop_table('widgets_a')")
        assert widgets.behind("base", "widgets") == []
        widgets.upgrade()
        assert [(info.revision, lost) for info, lost in widgets.behind("base", "widgets")] == [
            ("widgets1", ["drops widgets_a"])
        ]


class TestRawSql:
    @pytest.mark.parametrize(
        ("sql", "tables"),
        [
            ("drop table if exists a, b", [("a", "b")]),
            ("CREATE UNIQUE INDEX ix ON a (id)", [("a",)]),
            ("ALTER TABLE a RENAME TO b", [("a", "b")]),
            ("INSERT INTO a SELECT * FROM b", [("a",)]),
            ("UPDATE a SET n = 'x; DROP TABLE b'", [("a",)]),
            ("-- DROP TABLE b\nDELETE FROM a", [("a",)]),
            ("CREATE TABLE a (id INT REFERENCES b ON UPDATE CASCADE); DROP TABLE c", [("a",), ("c",)]),
            ("INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE SET n = 1", [("a",)]),
            ("SELECT * FROM a FOR UPDATE", []),
            ("WITH old AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM old", [("b",), ("a",)]),
            ("SELECT * INTO a FROM b", [("a",)]),
            ("COPY a FROM '/tmp/rows'; COPY b TO STDOUT", [("a",)]),
            ("CREATE TABLE a PARTITION OF b FOR VALUES IN (1)", [("a", "b")]),
            ("DO $$ BEGIN EXECUTE 'DELETE FROM a'; END $$", [("a",)]),
            ("MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN UPDATE SET n = 1", [("a",)]),
            ("DO $$ BEGIN IF true THEN DELETE FROM a; END IF; END $$", [("a",)]),
            ("CREATE FUNCTION f() RETURNS void AS $x$ UPDATE a SET n = 1 $x$ LANGUAGE sql", [("a",)]),
            ("CREATE TRIGGER t AFTER UPDATE ON a FOR EACH ROW EXECUTE FUNCTION f()", [("a",)]),
        ],
    )
    def test_the_tables_it_changes_are_read(self, sql: str, tables: list[tuple[str, ...]]) -> None:
        assert [operation.tables for operation in read_sql(sql) if operation.tables] == tables

    @pytest.mark.parametrize(
        "sql",
        [
            "ALTER TABLE widgets_a ADD COLUMN u int REFERENCES auth_users (id)",
            "ALTER TABLE widgets_a ADD CONSTRAINT fk FOREIGN KEY (u) REFERENCES auth_users (id)",
            "CREATE TABLE widgets_b (u int REFERENCES auth_users (id))",
            "DO $$ BEGIN EXECUTE 'DELETE FROM auth_users'; END $$",
            "DROP SCHEMA public CASCADE",
            "DROP OWNED BY somebody",
            "COPY auth_users FROM '/tmp/rows'",
            "ALTER SEQUENCE auth_users_id_seq RESTART",
            "SELECT setval('auth_users_id_seq', 1)",
            "DROP VIEW auth_v",
            "DROP MATERIALIZED VIEW auth_v",
            "DROP TYPE auth_kind CASCADE",
            "SELECT * INTO auth_copies FROM widgets_a",
            "CREATE TRIGGER t AFTER UPDATE OF n ON widgets_a BEGIN UPDATE auth_users SET n = 1; END",
            "ALTER TABLE auth_users ENABLE ROW LEVEL SECURITY",
            "GRANT ALL ON auth_users TO somebody",
            "COMMENT ON TABLE auth_users IS 'mine'",
            "REPLACE INTO auth_users VALUES (1)",
        ],
    )
    @pytest.mark.once
    def test_what_reaches_anothers_is_named(self, planted: Planted, sql: str) -> None:
        mark(add_revision(planted.line, 1, f"{MAKE}\nop.execute({sql!r})"))
        assert planted.faults("owner")

    @pytest.mark.parametrize(
        "sql",
        [
            "ALTER TABLE widgets_a ALTER COLUMN note TYPE varchar(3)",
            "DELETE FROM widgets_a WHERE true",
            "DELETE FROM widgets_a WHERE 1 = 1",
            "DROP TYPE widgets_kind CASCADE",
            "WITH old AS (DELETE FROM widgets_a RETURNING *) SELECT * FROM old",
        ],
    )
    @pytest.mark.once
    def test_what_loses_data_is_named(self, planted: Planted, sql: str) -> None:
        add_revision(planted.line, 1, f"{MAKE}\nop.execute({sql!r})")
        assert planted.faults("destructive")

    @pytest.mark.once
    def test_what_is_not_understood_is_named(self, planted: Planted) -> None:
        add_revision(planted.line, 1, f"{MAKE}\nop.execute('UPDATE OR IGNORE auth_users SET id = 1')")
        assert planted.faults("owner")
        (note,) = planted.faults("unread")
        assert "SQL that is not understood" in note.what
        assert not note.blocking
        assert verdict([note]) == "No fault was found in what could be read"

    @pytest.mark.parametrize("kept", ["DROP CONSTRAINT c", "ALTER COLUMN n DROP NOT NULL", "ALTER n DROP DEFAULT"])
    def test_what_drops_no_column_is_no_loss(self, kept: str) -> None:
        assert [operation.loses for operation in read_sql(f"ALTER TABLE a {kept}")] == [None]


class TestSource:
    """Nothing of a revision is run to judge it."""

    def test_an_upgrade_runs_what_it_upgrades_and_no_more(self, widgets: Migrations, tmp_path: Path) -> None:
        touched = "import pathlib\nwith open({!r}, 'a') as file:\n    file.write({!r})"
        up = f"{touched.format(str(tmp_path / 'ran'), 'up')}\n{MAKE}"
        add_revision(widgets.timelines["widgets"], 1, up, touched.format(str(tmp_path / "ran"), "down"))
        widgets.check()
        widgets.upgrade()
        assert (tmp_path / "ran").read_text() == "up"
        assert widgets.behind("-1", "widgets")
        assert (tmp_path / "ran").read_text() == "up"

    @pytest.mark.parametrize(
        "code",
        [
            "TABLE = 'auth_users'\nop.drop_table(TABLE)",
            "for name in [f'auth_{part}' for part in ('users',)]:\n    op.drop_table(name)",
            "def gone(name):\n    op.drop_table('auth_' + name)\ngone('users')",
            "op.drop_table('auth_%s' % 'users')",
            "op.drop_table('_'.join(['auth', 'users']))",
            "if op.get_bind().scalar(sa.text('SELECT 1')):\n    pass\nelse:\n    op.drop_table('auth_users')",
            "try:\n    pass\nfinally:\n    op.drop_table('auth_users')",
            "with op.get_context().autocommit_block():\n    op.drop_table('auth_users')",
            "connection = op.get_bind()\nconnection.execute(sa.text('DELETE FROM auth_users'))",
            "rows = op.get_bind().execute(sa.text('SELECT 1'))\nfor row in rows:\n    op.drop_table('auth_users')",
            "sa.Table('auth_users', sa.MetaData(), sa.Column('id', sa.Integer)).drop(op.get_bind())",
        ],
    )
    @pytest.mark.once
    def test_what_its_code_leads_to_is_read(self, planted: Planted, code: str) -> None:
        mark(add_revision(planted.line, 1, code))
        assert [fault.what.partition(", ")[0].split()[-1] for fault in planted.faults("owner")] == ["auth_users"]

    @pytest.mark.parametrize(
        "code",
        [
            "from tests import helpers\nhelpers.fill(op)",
            "import os\nop.drop_table(os.environ['TABLE'])",
            "import os\nop.execute(os.environ['STATEMENT'])",
            "import os\nop.execute('DELETE FROM ' + os.environ['TABLE'] + ' WHERE id = 1')",
            "from sqlalchemy.orm import Session\nSession(op.get_bind()).execute(sa.text('SELECT 1'))",
            "name = 'a' if op.get_bind() else 'b'\nop.drop_table(name)",
        ],
    )
    @pytest.mark.once
    def test_what_cannot_be_followed_is_named(self, planted: Planted, code: str) -> None:
        mark(add_revision(planted.line, 1, code))
        assert planted.faults("owner") == []
        (note, *_) = planted.faults("unread")
        assert str(note).startswith("widgets widgets1: not read: ")
        assert not note.blocking


class TestHeads:
    def test_two_are_found_refused_and_joined(self, widgets: Migrations) -> None:
        line = widgets.timelines["widgets"]
        add_revision(line, 1, MAKE)
        add_revision(line, 2, "pass")
        add_revision(line, 3, "pass", after=1)
        (fault,) = faults(widgets, "heads")
        assert str(fault) == (
            "widgets: has several heads: widgets2, widgets3. Join them: kit migrate merge --timeline widgets"
        )
        with pytest.raises(MigrationError, match=r"several heads.* kit migrate merge --timeline widgets"):
            widgets.upgrade()
        assert len(widgets.merge()) == 1
        assert widgets.merge() == []
        widgets.upgrade()
        assert faults(widgets, "heads", "pending") == []


class TestDatabase:
    def test_what_has_not_run_is_named(self, widgets: Migrations) -> None:
        add_revision(widgets.timelines["widgets"], 1, MAKE)
        (fault,) = faults(widgets, "pending")
        assert str(fault) == "widgets: 1 not run here yet: widgets1. Run kit migrate"
        with pytest.raises(MigrationError, match="not run here yet: widgets1; first run kit migrate"):
            widgets.revision("next", "widgets")

    def test_what_models_and_tables_disagree_on_is_named(self, committed: Database, tmp_path: Path) -> None:
        found = migrations(committed.engine.url, shared(tmp_path, "widgets", tables=("widgets_a",)))
        assert [fault.what for fault in faults(found, "difference")] == [
            "models and tables differ: create_table on widgets_a",
            "models and tables differ: create_index on widgets_a",
        ]

    def test_a_database_that_newer_code_has_migrated_is_said_to_be_so(self, widgets: Migrations) -> None:
        path = add_revision(widgets.timelines["widgets"], 1, MAKE)
        widgets.upgrade()
        path.unlink()
        for action in (widgets.upgrade, widgets.check, widgets.status):
            with pytest.raises(MigrationError, match=r"the database is at widgets1, of which .* knows nothing"):
                action()

    def test_a_revision_that_fails_is_named_and_undone(self, widgets: Migrations) -> None:
        line = widgets.timelines["widgets"]
        add_revision(line, 1, MAKE)
        add_revision(line, 2, "op.execute('INSERT INTO widgets_absent VALUES (1)')")
        before = tables_of(widgets.url)
        with pytest.raises(MigrationError, match=r"timeline widgets: widgets2 failed: .*absent"):
            widgets.upgrade()
        assert tables_of(widgets.url) == before

    def test_whatever_a_revision_raises_is_named(self, widgets: Migrations) -> None:
        line = widgets.timelines["widgets"]
        add_revision(line, 1, MAKE, "raise NotImplementedError('no way back')")
        path = add_revision(line, 2, "raise RuntimeError('no')")
        with pytest.raises(MigrationError, match=r"widgets2 failed: RuntimeError: no\. Nothing of it was kept"):
            widgets.upgrade()
        path.unlink()
        widgets.upgrade()
        with pytest.raises(MigrationError, match=r"widgets1 failed: NotImplementedError: no way back\."):
            widgets.downgrade("base", "widgets")
        assert "widgets_a" in tables_of(widgets.url)

    @pytest.mark.parametrize("text", ["(", "1 / 0", "revision, down_revision = 'widgets2', 'absent'"])
    @pytest.mark.filterwarnings("ignore:Revision absent referenced:UserWarning")
    def test_a_file_that_is_no_revision_is_said_to_be_so(self, widgets: Migrations, text: str) -> None:
        (widgets.timelines["widgets"].versions / "broken.py").write_text(text)
        with pytest.raises(MigrationError, match="timeline widgets: its revisions cannot be read: "):
            widgets.upgrade()
