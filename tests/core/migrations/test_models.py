"""A model changes: what the revision does to tables with rows, and that a check sees what has no revision."""

import enum
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.db import live_unique, utcnow
from app.core.migrations.timelines import MigrationError
from tests.core.migrations.conftest import Shop, things


def colour(*values: str) -> sa.Column[str]:
    return sa.Column("colour", sa.Enum(*(values or ("RED", "BLUE")), name="shop_colour"))


class TestNativeEnum:
    def test_a_column_of_it_is_added(self, shop: Shop) -> None:
        shop.step(things())
        shop.run("INSERT INTO shop_things DEFAULT VALUES")
        shop.step(things(colour()))
        shop.run("UPDATE shop_things SET colour = 'RED'")
        shop.down_and_up(things(colour()))

    def test_a_second_table_has_it(self, shop: Shop) -> None:
        shop.step(things(colour()))
        both = things(colour(), name="shop_others", metadata=things(colour()))
        shop.step(both)
        shop.down_and_up(both)

    def test_members_are_added(self, shop: Shop, is_postgresql: bool) -> None:
        shop.step(things(colour()))
        shop.run("INSERT INTO shop_things (colour) VALUES ('RED')")
        more = things(colour("PINK", "RED", "BLUE", "ULTRAVIOLET"))
        assert "ADD VALUE IF NOT EXISTS 'ULTRAVIOLET' AFTER 'BLUE'" in shop.step(more)
        shop.run("INSERT INTO shop_things (colour) VALUES ('ULTRAVIOLET'), ('PINK')")
        if is_postgresql:
            assert shop.run("SELECT enum_range(NULL::shop_colour)::text") == [("{PINK,RED,BLUE,ULTRAVIOLET}",)]
        shop.down_and_up(more)

    def test_a_member_that_no_revision_made_is_a_difference_on_both_databases(self, shop: Shop) -> None:
        shop.step(things(colour()))
        assert shop.faults(things(colour("RED", "BLUE", "NEW"))) == [
            "models and tables differ: alter_enum on shop_colour"
        ]

    def test_a_value_that_a_revision_renamed_is_known(self, shop: Shop) -> None:
        shop.step(things(colour()))
        renamed = "ALTER TYPE shop_colour RENAME VALUE 'RED' TO 'ROT'"
        (path,) = shop.with_models(things(colour())).revision("rename", "shop", empty=True)
        body = f'if op.get_context().dialect.name == "postgresql":\n        op.execute("{renamed}")'
        path.write_text(path.read_text().replace("pass", body, 1))
        german = things(colour("ROT", "BLUE"))
        shop.with_models(german).upgrade()
        assert shop.faults(german) == []

    def test_a_column_of_text_becomes_one(self, shop: Shop) -> None:
        shop.step(things(sa.Column("colour", sa.String(4))))
        shop.run("INSERT INTO shop_things (colour) VALUES ('RED')")
        shop.step(things(colour()))
        assert shop.run("SELECT colour FROM shop_things") == [("RED",)]


def coded(*items: Any) -> sa.MetaData:
    """Models with a code."""
    return things(sa.Column("code", sa.String(20)), *items)


UNIQUE = "uq_shop_things_code"


class TestIndex:
    def test_a_unique_index_becomes_one_of_live_rows(self, shop: Shop) -> None:
        shop.step(coded(sa.Index(UNIQUE, "code", unique=True)))
        shop.run("INSERT INTO shop_things (code) VALUES ('a')")
        live = coded(sa.Column("deleted_at", sa.DateTime), live_unique(UNIQUE, "code"))
        text = shop.step(live)
        shop.run("UPDATE shop_things SET deleted_at = '2020-01-01'", "INSERT INTO shop_things (code) VALUES ('a')")
        with pytest.raises(sa.exc.IntegrityError):
            shop.run("INSERT INTO shop_things (code) VALUES ('a')")
        assert text.count("sqlite_where=sa.text('deleted_at IS NULL')") == 2
        shop.run("DELETE FROM shop_things")
        shop.down_and_up(live)

    def test_a_predicate_changes(self, shop: Shop) -> None:
        def where(predicate: str) -> sa.MetaData:
            clause = sa.text(predicate)
            return coded(sa.Index(UNIQUE, "code", unique=True, sqlite_where=clause, postgresql_where=clause))

        shop.step(where("id > 1"))
        text = shop.step(where("id > 10"))
        before, after = text.split("def downgrade")
        for database in ("sqlite", "postgresql"):  # each direction names the predicate for both
            assert f"{database}_where=sa.text('id > 10')" in before
            assert f"{database}_where=sa.text('id > 1')" in after.split("create_index")[1]
        shop.down_and_up(where("id > 10"))

    def test_an_expression_comes_changes_and_goes(self, shop: Shop) -> None:
        def on(expression: str) -> sa.MetaData:
            return coded(sa.Index(UNIQUE, sa.text(expression), unique=True))

        shop.step(coded())
        shop.run("INSERT INTO shop_things (code) VALUES ('a')")
        for expression in ("lower(code)", "upper(code)"):
            shop.step(on(expression))
            with pytest.raises(sa.exc.IntegrityError):
                shop.run("INSERT INTO shop_things (code) VALUES ('A')")
        shop.step(coded())
        shop.run("INSERT INTO shop_things (code) VALUES ('A')", "DELETE FROM shop_things")
        shop.down_and_up(coded())

    def test_a_new_table_has_one_on_an_expression(self, shop: Shop) -> None:
        assert "lower(code)" in shop.step(coded(sa.Index(UNIQUE, sa.text("lower(code)"))))


class TestCheck:
    def test_it_is_added_changed_and_taken_away(self, shop: Shop) -> None:
        def priced(*texts: str) -> sa.MetaData:
            checks = [sa.CheckConstraint(text, name=f"price{number}") for number, text in enumerate(texts)]
            return things(sa.Column("price", sa.Integer), *checks)

        shop.step(priced())
        shop.run("INSERT INTO shop_things (price) VALUES (5)")
        for texts in (["price >= 0"], ["price >= 1"], ["price >= 1", "price in (5, 6)"]):
            shop.step(priced(*texts))
            with pytest.raises(sa.exc.IntegrityError):
                shop.run("INSERT INTO shop_things (price) VALUES (0 - 1)")
        with pytest.raises(sa.exc.IntegrityError):
            shop.run("INSERT INTO shop_things (price) VALUES (7)")
        shop.step(priced())
        shop.run("INSERT INTO shop_things (price) VALUES (7)", "DELETE FROM shop_things")
        shop.down_and_up(priced())

    def test_values_of_an_enum_that_is_text(self, shop: Shop) -> None:
        def of(*values: str) -> sa.MetaData:
            kind = sa.Enum(*values, name="kind", native_enum=False, create_constraint=True)
            return things(sa.Column("kind", kind))

        shop.step(of("a", "b"))
        shop.run("INSERT INTO shop_things (kind) VALUES ('a')")
        text = shop.step(of("a", "longer"))
        shop.run("INSERT INTO shop_things (kind) VALUES ('longer')")
        with pytest.raises(sa.exc.IntegrityError):
            shop.run("INSERT INTO shop_things (kind) VALUES ('b')")
        assert "kind IN ('a', 'b')" in text.split("def downgrade")[1]
        shop.run("DELETE FROM shop_things")
        shop.down_and_up(of("a", "longer"))

    def test_a_column_of_an_enum_that_is_text_is_added(self, shop: Shop) -> None:
        shop.step(things())
        shop.run("INSERT INTO shop_things DEFAULT VALUES")
        kind = sa.Enum("a", "b", name="kind", native_enum=False, create_constraint=True)
        models = things(sa.Column("kind", kind, nullable=False, default="a"))
        shop.step(models)
        assert shop.run("SELECT kind FROM shop_things") == [("a",)]
        with pytest.raises(sa.exc.IntegrityError):
            shop.run("INSERT INTO shop_things (kind) VALUES ('c')")
        shop.down_and_up(models)

    def test_one_without_a_name_is_seen(self, shop: Shop) -> None:
        def priced(text: str) -> sa.MetaData:
            metadata = sa.MetaData()
            sa.Table("shop_things", metadata, sa.Column("price", sa.Integer), sa.CheckConstraint(text))
            return metadata

        shop.step(priced("price > 1"))
        assert "check" in "".join(shop.faults(priced("price > 2")))


class TestComputedColumn:
    def test_a_change_is_left_to_a_person_and_said_so(self, shop: Shop) -> None:
        def of(text: str) -> sa.MetaData:
            return things(sa.Column("price", sa.Integer), sa.Column("twice", sa.Integer, sa.Computed(text, True)))

        shop.step(of("price * 2"))
        assert [what.partition(" is ")[0] for what in shop.faults(of("price * 3"))] == [
            "computed column twice of shop_things"
        ]
        (path,) = shop.with_models(of("price * 3")).revision("by hand")
        assert "# Write by hand, in both directions:\n    # - computed column twice" in path.read_text()


class TestDefault:
    @pytest.mark.parametrize(
        ("kind", "default", "other"),
        [
            (sa.JSON(), sa.text("'{}'"), sa.text("'[]'")),
            (sa.Text(), "", " "),
            (sa.Text(), 'it\'s "%s"', "''"),
            (sa.Text(), sa.text("'100%'"), None),
            (sa.Boolean(), sa.false(), sa.true()),
            (sa.DateTime(), sa.func.now(), None),
            (sa.Numeric(6, 2), sa.text("1.50"), sa.text("2")),
        ],
        ids=str,
    )
    def test_it_settles_and_its_change_too(self, shop: Shop, kind: Any, default: Any, other: Any) -> None:
        for given in (default, other):
            shop.step(things(sa.Column("word", kind, server_default=given)))
        shop.down_and_up(things(sa.Column("word", kind, server_default=other)))


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class TestRequiredColumn:
    """A column without NULL, on a table with rows."""

    @pytest.mark.parametrize(
        ("kind", "default", "stored"),
        [
            (sa.Boolean(), False, [False, 0]),
            (sa.Boolean(), True, [True, 1]),
            (sa.Integer(), 7, [7]),
            (sa.Numeric(6, 2), Decimal("1.50"), [Decimal("1.50"), 1.5]),
            (sa.String(20), "it's %s", ["it's %s"]),
            (sa.Enum(Size, name="shop_size"), Size.LARGE, ["LARGE"]),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("existed", [False, True], ids=["added", "made required"])
    def test_rows_get_the_models_default(
        self, shop: Shop, existed: bool, kind: Any, default: Any, stored: list[Any]
    ) -> None:
        shop.step(things(*([sa.Column("word", kind)] if existed else [])))
        shop.run("INSERT INTO shop_things DEFAULT VALUES")
        models = things(sa.Column("word", kind, nullable=False, default=default))
        shop.step(models)
        ((found,),) = shop.run("SELECT word FROM shop_things")
        assert found in stored
        with pytest.raises(sa.exc.IntegrityError):  # the default is the model's, not the table's
            shop.run("INSERT INTO shop_things DEFAULT VALUES")
        shop.down_and_up(models)

    @pytest.mark.parametrize("existed", [False, True], ids=["added", "made required"])
    def test_without_a_plain_default_the_revision_says_what_to_decide(self, shop: Shop, existed: bool) -> None:
        shop.step(things(*([sa.Column("at", sa.DateTime)] if existed else [])))
        shop.run("INSERT INTO shop_things DEFAULT VALUES")
        migrations = shop.with_models(things(sa.Column("at", sa.DateTime, nullable=False, default=utcnow)))
        (path,) = migrations.revision("at")
        assert "# Fails where there are rows, as shop_things.at is required:" in path.read_text()
        with pytest.raises(MigrationError, match="failed"):
            migrations.upgrade()
        assert shop.run("SELECT count(*) FROM shop_things") == [(1,)]

    def test_a_downgrade_that_brings_one_back_says_so(self, shop: Shop) -> None:
        shop.step(things(sa.Column("word", sa.Text, nullable=False)))
        (path,) = shop.with_models(things()).revision("without")
        assert "# Fails where there are rows" in path.read_text().split("def downgrade")[1]


class TestShapes:
    def test_a_part_of_a_partitioned_table_is_left_alone(self, shop: Shop, is_postgresql: bool) -> None:
        if not is_postgresql:
            pytest.skip("SQLite has none")
        metadata = sa.MetaData()
        visits = sa.Table("shop_visits", metadata, sa.Column("day", sa.Date), postgresql_partition_by="RANGE (day)")
        sa.Index("ix_shop_visits_day", visits.c.day)
        shop.step(metadata)
        shop.run("CREATE TABLE shop_visits_1 PARTITION OF shop_visits FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')")
        assert shop.faults(metadata) == []
        assert shop.with_models(metadata).revision("again") == []

    def test_a_table_with_a_schema_is_refused(self, shop: Shop) -> None:
        metadata = sa.MetaData()
        sa.Table("shop_invoices", metadata, sa.Column("id", sa.Integer), schema="billing")
        migrations = shop.with_models(metadata)
        assert [fault.what for fault in migrations.check()] == ["its table billing.shop_invoices has a schema"]
        with pytest.raises(MigrationError, match=r"billing\.shop_invoices has a schema"):
            migrations.revision("invoices")
