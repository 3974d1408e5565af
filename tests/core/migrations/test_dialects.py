"""Revisions written by hand: what a rebuilt table keeps on SQLite, and what both databases do alike."""

import pytest
import sqlalchemy as sa

from app.core.migrations.preview import preview
from app.core.migrations.timelines import MigrationError
from tests.core.migrations.conftest import Shop
from tests.core.migrations.timelines import add_revision

MAKE = """
op.create_table(
    "shop_things", sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(10)), sa.Column("note", sa.String(10)),
)
op.execute("INSERT INTO shop_things (name, note) VALUES ('a', 'x')")
""".strip()
REBUILD = """
with op.batch_alter_table("shop_things") as batch:
    batch.alter_column("note", existing_type=sa.String(10), type_=sa.String(20))
""".strip()
RENAME = """
with op.batch_alter_table("shop_things") as batch:
    batch.alter_column("name", new_column_name="title", existing_type=sa.String(10), nullable=False)
    batch.create_unique_constraint("uq_shop_things_title", ["title"])
    batch.create_index("ix_shop_things_low", [sa.text("lower(title)")])
""".strip()
RENAME_BACK = """
with op.batch_alter_table("shop_things") as batch:
    batch.drop_index("ix_shop_things_low")
    batch.drop_constraint("uq_shop_things_title")
    batch.alter_column("title", new_column_name="name", existing_type=sa.String(10), nullable=True)
""".strip()


def run(shop: Shop, *steps: tuple[str, str]) -> None:
    """Run steps with their ways back, each as a revision."""
    migrations = shop.with_models(sa.MetaData())
    for number, (up, down) in enumerate(steps, 1):
        add_revision(migrations.timelines["shop"], number, up, down)
    migrations.upgrade()


class TestRebuild:
    def test_a_view_on_the_table_is_no_hindrance(self, shop: Shop) -> None:
        view = "op.execute('CREATE VIEW shop_names AS SELECT name FROM shop_things')"
        run(shop, (f"{MAKE}\n{view}", "op.execute('DROP VIEW shop_names')"), (REBUILD, "pass"))
        assert shop.run("SELECT name FROM shop_names") == [("a",)]

    def test_triggers_and_indexes_on_expressions_are_kept(self, shop: Shop, is_postgresql: bool) -> None:
        if is_postgresql:
            pytest.skip("PostgreSQL rebuilds no table")
        trigger = "CREATE TRIGGER shop_t AFTER INSERT ON shop_things BEGIN DELETE FROM shop_things WHERE name=':'; END"
        index = "CREATE UNIQUE INDEX shop_low ON shop_things (lower(name))"
        made = f'op.get_bind().exec_driver_sql("{trigger}")\nop.execute("{index}")'
        run(shop, (f"{MAKE}\n{made}", "pass"), (REBUILD, "pass"))
        found = shop.run("SELECT sql FROM sqlite_master WHERE name IN ('shop_t', 'shop_low') ORDER BY name")
        assert [sql for (sql,) in found] == [index, trigger]

    def test_a_constraint_on_no_column_is_refused(self, shop: Shop) -> None:
        batch = 'with op.batch_alter_table("shop_things", recreate="always") as batch:\n'
        with pytest.raises(MigrationError, match="absent"):
            run(shop, (f'{MAKE}\n{batch}    batch.create_unique_constraint("uq", ["absent"])', "pass"))


class TestRename:
    def test_a_constraint_and_an_index_on_the_new_name_in_the_same_batch(self, shop: Shop) -> None:
        run(shop, (MAKE, "op.drop_table('shop_things')"), (RENAME, RENAME_BACK))
        for column, value in (("title", "a"), ("note", "x")):
            with pytest.raises(sa.exc.IntegrityError):
                shop.run(f"INSERT INTO shop_things ({column}) VALUES ('{value}')")
        migrations = shop.with_models(sa.MetaData())
        migrations.downgrade("-1")
        assert shop.run("SELECT name, note FROM shop_things") == [("a", "x")]
        migrations.upgrade()


class TestNativeEnum:
    COLUMN = "sa.Column('colour', sa.Enum('RED', name='shop_colour'))"

    def test_its_type_is_made_where_it_is_missing(self, shop: Shop) -> None:
        added = f"op.add_column('shop_things', {self.COLUMN})"
        again = f"op.create_table('shop_others', sa.Column('id', sa.Integer), {self.COLUMN})"
        run(shop, (MAKE, "pass"), (added, "pass"), (again, "pass"))
        shop.run("INSERT INTO shop_others (id, colour) VALUES (1, 'RED')")

    def test_a_preview_makes_it_too(self, shop: Shop, is_postgresql: bool) -> None:
        run(shop, (MAKE, "pass"))
        migrations = shop.with_models(sa.MetaData())
        add_revision(migrations.timelines["shop"], 2, f"op.add_column('shop_things', {self.COLUMN})")
        sql = preview(migrations)
        assert ("CREATE TYPE shop_colour AS ENUM ('RED')" in sql) == is_postgresql
        if is_postgresql:
            shop.run(sql)
            shop.run("UPDATE shop_things SET colour = 'RED'")
