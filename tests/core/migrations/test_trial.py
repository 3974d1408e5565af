"""What trying revisions on a scratch database finds: with rows in the tables, up, down and up again."""

import pytest
import sqlalchemy as sa

from app.core.migrations.refusals import Fault
from tests.core.migrations.conftest import Shop
from tests.core.migrations.timelines import add_revision
from tools.migrations.trial import try_out

MAKE = """
op.create_table("shop_things", sa.Column("id", sa.Integer, primary_key=True), sa.Column("note", sa.String(10)))
op.create_table(
    "shop_parts",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("thing_id", sa.Integer, sa.ForeignKey("shop_things.id"), nullable=False, unique=True),
    sa.Column("kind", sa.Enum("a", "b", name="kind", native_enum=False, create_constraint=True), nullable=False),
    sa.Column("size", sa.Enum("S", "L", name="shop_size"), nullable=False),
    sa.Column("doc", sa.JSON, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("key", sa.Uuid, nullable=False),
    sa.Column("price", sa.Numeric(6, 2), nullable=False),
)
""".strip()
GONE = 'op.drop_table("shop_parts")\nop.drop_table("shop_things")'


def tried(shop: Shop, *steps: tuple[str, str]) -> list[Fault]:
    """What is found of a first revision and `steps`."""
    migrations = shop.with_models(sa.MetaData())
    for number, (up, down) in enumerate(((MAKE, GONE), *steps), 1):
        add_revision(migrations.timelines["shop"], number, up, down)
    return try_out(migrations)


class TestRows:
    def test_sound_revisions_run_and_leave_rows(self, shop: Shop) -> None:
        assert tried(shop, ('op.add_column("shop_things", sa.Column("word", sa.Text))', "pass")) == []
        assert shop.run("SELECT count(*) FROM shop_parts") == [(0,)]  # down and up again

    @pytest.mark.parametrize(
        "up",
        [
            'op.add_column("shop_things", sa.Column("word", sa.Text, nullable=False))',
            'with op.batch_alter_table("shop_things") as b:\n    b.alter_column("note", nullable=False)',
            'op.execute("UPDATE shop_things SET id = 1")',
        ],
    )
    def test_a_revision_that_fails_with_rows_is_named(self, shop: Shop, up: str) -> None:
        found = tried(shop, (up, "pass"))
        (fault,) = [fault for fault in found if fault.blocking]
        assert (fault.kind, fault.revision) == ("rows", "shop2")
        assert "fails on " in fault.what
        assert "where there are rows: " in fault.what

    def test_a_reason_why_there_are_none_is_taken(self, shop: Shop) -> None:
        up = 'op.add_column("shop_things", sa.Column("word", sa.Text, nullable=False))'
        migrations = shop.with_models(sa.MetaData())
        add_revision(migrations.timelines["shop"], 1, MAKE, GONE)
        path = add_revision(migrations.timelines["shop"], 2, up)
        path.write_text(f"{path.read_text()}\nneeds_empty = 'nobody had it before 2.0'\n")
        assert [fault for fault in try_out(migrations) if fault.blocking] == []

    def test_a_revision_that_fails_anyhow_ends_it(self, shop: Shop) -> None:
        (fault,) = tried(shop, ("1 / 0", "pass"), ("pass", "pass"))
        assert (fault.kind, fault.revision) == ("fails", "shop2")
        assert "ZeroDivisionError" in fault.what

    def test_a_table_that_no_row_fits_is_named(self, shop: Shop) -> None:
        check = 'sa.CheckConstraint("length(word) = 77")'
        up = f'op.create_table("shop_odd", sa.Column("word", sa.Text, nullable=False), {check})'
        (note,) = tried(shop, (up, 'op.drop_table("shop_odd")'))
        assert not note.blocking
        assert note.what.startswith("not tried with rows in shop_odd on ")


class TestDowngrade:
    def test_one_that_fails_with_rows_is_noted(self, shop: Shop) -> None:
        back = 'op.add_column("shop_things", sa.Column("note", sa.Text, nullable=False))'
        (note,) = tried(shop, ('with op.batch_alter_table("shop_things") as b:\n    b.drop_column("note")', back))
        assert not note.blocking
        assert "its downgrade fails on" in note.what

    def test_one_that_fails_without_rows_is_a_fault(self, shop: Shop) -> None:
        found = tried(shop, ("pass", 'op.execute("DROP TABLE shop_absent")'))
        assert [fault.kind for fault in found if fault.blocking] == ["rows"]

    def test_one_that_is_meant_to_fail_is_noted(self, shop: Shop) -> None:
        found = tried(shop, ("pass", "raise NotImplementedError('no way back')"))
        assert found
        assert not [fault for fault in found if fault.blocking]
