"""Columns that become required: a value for rows that are there, or a hint where only a person can decide."""

from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops

_TRUTH = {"true": "1", "false": "0"}  # as text, what both databases take for a boolean


class Hint(MigrateOperation):
    def __init__(self, *lines: str) -> None:
        self.lines = [f"# {line}" for line in lines]


@renderers.dispatch_for(Hint)
def _render_hint(_context: AutogenContext, hint: Hint) -> list[str]:
    return hint.lines


def fill_required(container: ops.OpContainer, metadata: sa.MetaData) -> None:
    """Give rows that are there a value for a column that becomes required, or say that somebody must."""
    for table in [one for one in container.ops if isinstance(one, ops.ModifyTableOps)]:
        before: list[MigrateOperation] = []
        after: list[MigrateOperation] = []
        for place, step in enumerate(table.ops):
            if isinstance(step, ops.AddColumnOp) and _is_required(step.column):
                if value := _literal(step.column):
                    table.ops[place], default = _with_default(table.table_name, step.column, value)
                    after.append(default)
                else:
                    before.append(_needs_value(table.table_name, step.column.name))
            elif isinstance(step, ops.AlterColumnOp) and step.modify_nullable is False:
                model = metadata.tables.get(table.table_name)
                if value := _literal(model.columns[step.column_name]) if model is not None else None:
                    column: sa.ColumnClause[Any] = sa.column(step.column_name)
                    filled = sa.update(sa.table(table.table_name, column)).where(column.is_(None))
                    before.append(ops.ExecuteSQLOp(str(filled.values({column: sa.literal_column(value)}))))
                else:
                    before.append(_needs_value(table.table_name, step.column_name))
        at = container.ops.index(table)
        container.ops[at:at] = before
        if after:
            container.ops.insert(container.ops.index(table) + 1, ops.ModifyTableOps(table.table_name, after))


def _with_default(table: str, column: sa.Column[Any], value: str) -> tuple[MigrateOperation, MigrateOperation]:
    """Add the column with a default for the rows that are there, and take that away."""
    default = value[1:-1].replace("''", "'") if value.startswith("'") else _TRUTH.get(value, value)
    added = sa.Column(column.name, column.type, nullable=False, server_default=default, comment=column.comment)
    without = ops.AlterColumnOp(
        table, column.name, existing_type=column.type, existing_nullable=False, modify_server_default=None
    )
    return ops.AddColumnOp(table, added), without


def _needs_value(table: str, column: str) -> Hint:
    advice = "give it a server_default, or add it nullable, fill it, and make it required then."
    return Hint(f"Fails where there are rows, as {table}.{column} is required:", advice)


def _is_required(column: sa.Column[Any]) -> bool:
    return not column.nullable and column.server_default is None and not column.primary_key


def _literal(column: sa.Column[Any]) -> str | None:
    """The default of a model's column as SQL for both databases, where it is a plain value."""
    default = column.default
    if not isinstance(default, sa.ColumnDefault) or not default.is_scalar:
        return None
    try:
        compiled = sa.literal(default.arg, column.type).compile(compile_kwargs={"literal_binds": True})
    except (sa.exc.CompileError, NotImplementedError, TypeError, ValueError):
        return None
    return str(compiled)
