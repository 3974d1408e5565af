"""Compare the definitions the database gives of its tables with those it gives of the models' own, made beside them.

Alembic compares text, and leaves out CHECKs, predicates and expressions of indexes, computed columns and the values
of enums. A database writes each of them in one way, so two of its own answers can be compared.
"""

import re
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import NamedTuple, TypeAlias

from sqlalchemy import Connection, MetaData, Table, create_engine, inspect, text

Key: TypeAlias = tuple[str, str, str]  # kind, table, name
Definitions: TypeAlias = dict[Key, str]

_POSTGRESQL = text("""
WITH tables AS (SELECT oid, relname FROM pg_class WHERE relnamespace = CAST(:schema AS oid) AND relkind IN ('r', 'p')),
columns AS (
  SELECT attrelid, attnum, attname, attgenerated, relname, format_type(atttypid, atttypmod)
    || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END AS type
  FROM pg_attribute JOIN tables ON attrelid = tables.oid WHERE attnum > 0 AND NOT attisdropped
)
SELECT 'column' AS kind, relname, attname AS name, type AS definition FROM columns
UNION ALL
SELECT CASE attgenerated WHEN '' THEN 'default' ELSE 'computed column' END, relname, attname,
    pg_get_expr(adbin, adrelid)
  FROM pg_attrdef JOIN columns ON attrelid = adrelid AND attnum = adnum
  WHERE pg_get_expr(adbin, adrelid) NOT LIKE 'nextval(%'
UNION ALL
SELECT 'index', tables.relname, index.relname, CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END
    || regexp_replace(pg_get_indexdef(indexrelid), '^.*? USING ', '')
  FROM pg_index JOIN tables ON indrelid = tables.oid JOIN pg_class AS index ON index.oid = indexrelid
  WHERE indexrelid NOT IN (SELECT conindid FROM pg_constraint WHERE contype IN ('p', 'u', 'x'))
UNION ALL
SELECT CASE contype WHEN 'f' THEN 'foreign key' ELSE 'check' END, relname,
    CASE contype WHEN 'f' THEN pg_get_constraintdef(pg_constraint.oid) ELSE conname END,
    CASE contype WHEN 'f' THEN '' ELSE pg_get_constraintdef(pg_constraint.oid) END
  FROM pg_constraint JOIN tables ON conrelid = tables.oid WHERE contype IN ('c', 'x', 'f') AND conparentid = 0
UNION ALL
SELECT 'enum value', '', typname || '.' || enumlabel, ''
  FROM pg_enum JOIN pg_type ON pg_type.oid = enumtypid WHERE typnamespace = CAST(:schema AS oid)
""")


class Difference(NamedTuple):
    """One thing of a table that models and database define differently; None where one has it not."""

    kind: str
    table: str
    name: str
    wanted: str | None
    actual: str | None

    def __str__(self) -> str:
        where = f"{self.kind} {self.name}" + (f" of {self.table}" if self.table else "")
        if self.actual is None or self.wanted is None:
            return f"{where} is only in the {'models' if self.actual is None else 'database'}"
        return f"{where} is {self.actual} in the database, {self.wanted} in the models"


class Catalog:
    """The definitions of `tables` on both sides, each read when it is first asked for."""

    def __init__(self, connection: Connection, metadata: MetaData, tables: Collection[Table]) -> None:
        self._connection = connection
        self._metadata = metadata
        self._names = {table.name for table in tables}

    @cached_property
    def wanted(self) -> Definitions:
        """As the models would make them on this database."""
        plain = [table for table in self._metadata.tables.values() if table.schema is None]
        if self._connection.dialect.name == "sqlite":
            engine = create_engine("sqlite://")
            with engine.connect() as memory:
                self._metadata.create_all(memory, plain)
                return self._kept(_sqlite(memory))
        with self._connection.begin_nested() as savepoint:
            self._connection.execute(
                text("SELECT set_config('search_path', 'pg_temp, ' || current_setting('search_path'), true)")
            )
            self._metadata.create_all(self._connection, plain, checkfirst=False)
            found = self._kept(_postgresql(self._connection, "pg_my_temp_schema()"))
            savepoint.rollback()
        return found

    @cached_property
    def actual(self) -> Definitions:
        """As they are."""
        if self._connection.dialect.name == "sqlite":
            return self._kept(_sqlite(self._connection))
        return self._kept(_postgresql(self._connection, "current_schema()::regnamespace"))

    def _kept(self, found: Iterator[tuple[Key, str]]) -> Definitions:
        return {key: value for key, value in found if key[1] in self._names or not key[1]}

    def agree(self, kind: str, table: str, name: str) -> bool:
        """True if both sides define it alike."""
        return self.wanted.get((kind, table, name)) == self.actual.get((kind, table, name))

    def differences(self) -> list[Difference]:
        """Everything that differs, except values of an enum that no model has any more: the database keeps them."""
        enums = {name.partition(".")[0] for kind, _, name in self.actual if kind == "enum value"}

        def counts(kind: str, table: str, name: str) -> bool:
            if kind != "enum value":
                return self.wanted.get((kind, table, name)) != self.actual.get((kind, table, name))
            return (kind, table, name) not in self.actual and name.partition(".")[0] in enums

        keys = sorted(key for key in self.wanted.keys() | self.actual.keys() if counts(*key))
        return [Difference(*key, self.wanted.get(key), self.actual.get(key)) for key in keys]


def _postgresql(connection: Connection, schema: str) -> Iterator[tuple[Key, str]]:
    oid = connection.scalar(text(f"SELECT CAST({schema} AS oid)"))
    for kind, table, name, definition in connection.execute(_POSTGRESQL, {"schema": oid}):
        yield (kind, table, name), definition


def _sqlite(connection: Connection) -> Iterator[tuple[Key, str]]:
    found = inspect(connection)
    indexes = text("SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    for table, name, definition in connection.execute(indexes):
        unique = "UNIQUE " if re.match(r"CREATE\s+UNIQUE", definition, re.IGNORECASE) else ""
        yield ("index", table, name), unique + _plain(definition[definition.index("(") :])
    for table in found.get_table_names():
        for check in found.get_check_constraints(table):
            yield ("check", table, check["name"] or _plain(check["sqltext"])), _plain(check["sqltext"])
        for column in found.get_columns(table):
            if "computed" in column:
                yield ("computed column", table, column["name"]), _plain(column["computed"]["sqltext"])
            elif column["default"] is not None:
                yield ("default", table, column["name"]), _plain(column["default"])


def _plain(definition: str) -> str:
    """SQLite keeps what was written: spaces, quotes around names, and parentheses around a default mean nothing."""
    parts = re.split(r"('(?:[^']|'')*')", definition)
    outside = [re.sub(r'["`\[\]]', "", re.sub(r"\s+", " ", part)) for part in parts[::2]]
    parts[::2] = [re.sub(r"\s*([(),])\s*", r"\1", part) for part in outside]
    plain = "".join(parts).strip()
    return plain[1:-1] if re.fullmatch(r"\([^()]*\)", plain) and " WHERE " not in plain else plain
