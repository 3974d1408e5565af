"""Native enums in revisions: PostgreSQL has a type for each, which Alembic neither makes nor compares."""

import re
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from app.core.migrations.dialects import native_type

_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
_VALUE = re.compile(
    r"""ALTER\s+TYPE\s+(?P<type>[\w."]+)\s+(?:ADD\s+VALUE\s+(?:IF\s+NOT\s+EXISTS\s+)?'(?P<new>(?:[^']|'')+)'
    |RENAME\s+VALUE\s+'(?P<old>[^']+)'\s+TO\s+'(?P<to>[^']+)')|DROP\s+TYPE\s+(?:IF\s+EXISTS\s+)?(?P<gone>[\w."]+)""",
    re.IGNORECASE | re.VERBOSE,
)


class AlterEnumOp(MigrateOperation):
    """A statement for the types of PostgreSQL, which another database leaves out."""

    def __init__(self, name: str, *statements: str, commits: bool = False) -> None:
        self.table_name, self.statements, self.commits = name, statements, commits

    def reverse(self) -> "AlterEnumOp":
        return AlterEnumOp(self.table_name)  # PostgreSQL takes no value out of an enum


@renderers.dispatch_for(AlterEnumOp)
def _render_enum(_context: AutogenContext, operation: AlterEnumOp) -> list[str]:
    if not operation.statements:
        return []
    lines = ['if op.get_context().dialect.name == "postgresql":']
    if operation.commits:  # a new value can be used when it is committed
        lines.append("    with op.get_context().autocommit_block():")
    indent = "    " * len(lines)
    return ["\n".join([*lines, *(f"{indent}op.execute({statement!r})" for statement in operation.statements)])]


def add_values(tables: Iterable[sa.Table], history: Iterable[MigrateOperation], upgrades: ops.UpgradeOps) -> None:
    """Add steps for values of enums that the models have and the revisions never made, whatever this database is."""
    known = _made(history)
    statements: dict[str, dict[str, None]] = {}
    for table in tables:
        for column in table.columns:
            kind = native_type(column.type, _POSTGRESQL)
            if not isinstance(kind, postgresql.ENUM) or _is_new(upgrades, column):
                continue
            values = known.get(str(kind.name))
            if values is None:  # the column was of another type, which SQLite may not see
                _replace_type(upgrades, column, sa.String(kind.length))
                continue
            if max(map(len, kind.enums)) > max(map(len, values)):  # SQLite has a column of text, as long as the longest
                _replace_type(upgrades, column, sa.Enum(*values, name=kind.name))
            for place, value in enumerate(kind.enums):
                beside = f"AFTER {_text(kind.enums[place - 1])}" if place else f"BEFORE {_text(values[0])}"
                if value not in values:
                    name = kind.compile(_POSTGRESQL)
                    added = f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {_text(value)} {beside}"
                    statements.setdefault(str(kind.name), {})[added] = None
    upgrades.ops[:0] = [AlterEnumOp(name, *added, commits=True) for name, added in statements.items()]


def _is_new(upgrades: ops.UpgradeOps, column: sa.Column[Any]) -> bool:
    for one in upgrades.ops:
        steps = one.ops if isinstance(one, ops.ModifyTableOps) else [one]
        if any(isinstance(step, ops.CreateTableOp) and step.table_name == column.table.name for step in steps):
            return True
        if any(isinstance(step, ops.AddColumnOp) and step.column is column for step in steps):
            return True
    return False


def _replace_type(upgrades: ops.UpgradeOps, column: sa.Column[Any], old: TypeEngine[Any]) -> None:
    """Change the type alone, in words for both databases, whatever autogenerate found on this one."""
    table = column.table.name
    for one in [one for one in upgrades.ops if isinstance(one, ops.ModifyTableOps) and one.table_name == table]:
        one.ops = [step for step in one.ops if getattr(step, "column_name", None) != column.name]
    change = ops.AlterColumnOp(
        table, column.name, existing_type=old, existing_nullable=column.nullable, modify_type=column.type
    )
    upgrades.ops.append(ops.ModifyTableOps(table, [change]))


def _made(history: Iterable[MigrateOperation]) -> dict[str, list[str]]:
    """The enums that the revisions have made, with their values."""
    known: dict[str, list[str]] = {}
    for step in history:
        for column in _columns(step):
            kind = native_type(column.type, _POSTGRESQL)
            if isinstance(kind, postgresql.ENUM) and kind.enums:
                known.setdefault(str(kind.name), list(kind.enums))
        for found in _VALUE.finditer(str(step.sqltext) if isinstance(step, ops.ExecuteSQLOp) else ""):
            values = known.get((found["type"] or "").replace('"', "").rpartition(".")[2], [])
            if found["new"]:
                values.append(found["new"].replace("''", "'"))
            elif found["old"] in values:
                values[values.index(found["old"])] = found["to"]
            known.pop((found["gone"] or "").replace('"', "").rpartition(".")[2], None)
    return known


def _columns(step: MigrateOperation) -> list[sa.Column[Any]]:
    match step:
        case ops.CreateTableOp():
            return [column for column in step.columns if isinstance(column, sa.Column)]
        case ops.AddColumnOp():
            return [step.column]
        case ops.AlterColumnOp(modify_type=kind) if kind is not None:
            return [sa.Column("changed", kind)]
    return []


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def drop_new_types(upgrades: ops.UpgradeOps, downgrades: ops.DowngradeOps, history: Iterable[MigrateOperation]) -> None:
    """Let the way back take away the types that the way there makes."""
    known = _made(history)
    steps = [step for one in upgrades.ops for step in (one.ops if isinstance(one, ops.OpContainer) else [one])]
    kinds = [native_type(column.type, _POSTGRESQL) for step in steps for column in _columns(step)]
    for name in dict.fromkeys(kind.name for kind in kinds if isinstance(kind, postgresql.ENUM)):
        if name not in known:
            quoted = _POSTGRESQL.identifier_preparer.quote(str(name))
            downgrades.ops.append(AlterEnumOp(str(name), f"DROP TYPE IF EXISTS {quoted}"))
