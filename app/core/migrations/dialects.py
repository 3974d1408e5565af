"""Alembic's operations on each database, where its own fail or lose something."""

from collections.abc import Iterable
from typing import Any

from alembic.ddl.impl import DefaultImpl
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.ddl.sqlite import SQLiteImpl
from alembic.operations.batch import ApplyBatchImpl, BatchOperationsImpl
from sqlalchemy import ARRAY, Column, Connection, Dialect, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.named_types import CreateEnumType
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine


def native_type(kind: TypeEngine[Any], dialect: Dialect) -> postgresql.ENUM | postgresql.DOMAIN | None:
    """The type of PostgreSQL that must exist before a column of `kind`: an enum, a domain."""
    if isinstance(kind, TypeDecorator):
        return native_type(kind.load_dialect_impl(dialect), dialect)
    if isinstance(kind, ARRAY):
        return native_type(kind.item_type, dialect)
    found = kind.dialect_impl(dialect)
    return found if isinstance(found, (postgresql.ENUM, postgresql.DOMAIN)) and found.create_type else None


class _Shared(DefaultImpl):
    def prep_table_for_batch(self, batch_impl: ApplyBatchImpl, table: Table) -> None:
        """Refuse a constraint on a column that is not there; Alembic leaves it out without a word."""
        for name, constraint in batch_impl.named_constraints.items():
            known = {*table.c.keys(), *batch_impl.columns}
            if unknown := {column.key for column in getattr(constraint, "columns", ())} - known:
                raise ValueError(f"{name}: {table.name} has no column {', '.join(sorted(unknown))}")
        super().prep_table_for_batch(batch_impl, table)


class Postgresql(_Shared, PostgresqlImpl):
    """Creates the enum of a new column where it is missing; Alembic does so for new tables alone, and twice."""

    __dialect__ = "postgresql"

    def create_table(self, table: Table, **kw: Any) -> None:
        self._create_types(column.type for column in table.columns)
        super().create_table(table, **kw)

    def add_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:
        self._create_types([column.type])
        super().add_column(table_name, column, **kw)

    def alter_column(self, table_name: str, column_name: str, **kw: Any) -> None:
        kind = kw.get("type_")
        if kind is not None and (native := native_type(kind, self.dialect)):
            before = native_type(kw.get("existing_type") or NullType(), self.dialect)
            if before is not None and before.name == native.name:
                del kw["type_"]  # it holds more values now; only SQLite has to make the column longer
            else:
                self._create_types([native])
                name = self.dialect.identifier_preparer.quote(column_name)
                kw.setdefault("postgresql_using", f"{name}::text::{native.compile(self.dialect)}")
        super().alter_column(table_name, column_name, **kw)

    def _create_types(self, kinds: Iterable[TypeEngine[Any]]) -> None:
        for native in (native_type(kind, self.dialect) for kind in kinds):
            if native is None:
                continue
            # SQLAlchemy creates no type that it finds here.
            self.memo.setdefault(f"pg_{native.__visit_name__}", set()).add((native.schema, native.name))
            if not self.as_sql and self.connection is not None:
                native.create(self.connection, checkfirst=True)
            elif isinstance(native, postgresql.ENUM):
                made = CreateEnumType(native).compile(dialect=self.dialect)
                self.static_output(f"DO $$ BEGIN {made}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;")


class Sqlite(_Shared, SQLiteImpl):
    """Keeps what a rebuilt table would lose: views, triggers, indexes on expressions, AUTOINCREMENT, its counter."""

    __dialect__ = "sqlite"
    _kept: tuple[str, ...] = ()

    def requires_recreate_in_batch(self, batch_op: BatchOperationsImpl) -> bool:
        """Called with all steps of a batch: run those that need no rebuild, in their place between the others."""
        steps = batch_op.batch
        for place, (name, args, options) in enumerate(steps):
            renamed = options.get("name") if name == "alter_column" else None
            if name not in ("create_index", "drop_index") and renamed in (None, *args[1:2]):
                continue
            batch_op.batch = steps[:place]
            batch_op.flush()
            rest = []
            if renamed is None:
                getattr(self, name)(*args, **options)
            else:
                super().alter_column(*args, name=renamed)
                changes = {key: value for key, value in options.items() if key != "name"}
                rest = [(name, (args[0], renamed), changes)] if _changes(changes) else []
            batch_op.batch = [*rest, *steps[place + 1 :]]
            return self.requires_recreate_in_batch(batch_op)
        return super().requires_recreate_in_batch(batch_op)

    def create_table(self, table: Table, **kw: Any) -> None:
        table.dialect_options["sqlite"]["autoincrement"] = True
        super().create_table(table, **kw)

    def drop_table(self, table: Table, **kw: Any) -> None:
        self._kept = ()
        if self.connection is not None and not self.as_sql:
            self._kept = _lost_with(self.connection, table.name)
        super().drop_table(table, **kw)

    def rename_table(self, old_table_name: str, new_table_name: str, schema: Any = None) -> None:
        if not old_table_name.startswith("_alembic_tmp_"):
            return super().rename_table(old_table_name, new_table_name, schema)
        # Without this a view on the table, which is not there at the moment, ends the rebuild.
        self._exec("PRAGMA legacy_alter_table=ON")
        super().rename_table(old_table_name, new_table_name, schema)
        self._exec("PRAGMA legacy_alter_table=OFF")
        for statement in self._kept:
            self._exec(text(statement.replace(":", r"\:")))
        return None


def _changes(options: dict[str, Any]) -> bool:
    """True if a step that renames a column changes more of it."""
    set_here = {key: options.get(key) for key in ("nullable", "type_", "autoincrement")}
    return any(value is not None for value in set_here.values()) or options.get("server_default", False) is not False


def _lost_with(connection: Connection, table: str) -> tuple[str, ...]:
    """Statements for what SQLite drops with a table and SQLAlchemy does not read: triggers, indexes on expressions."""
    found = text(
        "SELECT sql FROM sqlite_master AS one WHERE tbl_name = :name AND (type = 'trigger' OR type = 'index'"
        " AND EXISTS (SELECT 1 FROM pragma_index_xinfo(one.name) WHERE cid = -2))"
    )
    return tuple(connection.scalars(found, {"name": table}))
