"""What `revision` writes beyond Alembic's autogenerate, and how both databases are compared with the models."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory, write_hooks
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from app.core.db.base import NAMING_CONVENTION, UtcDateTime
from app.core.migrations.catalog import Catalog, Difference
from app.core.migrations.dialects import native_type
from app.core.migrations.env import environment_options
from app.core.migrations.operations import describe
from app.core.migrations.reader import read
from app.core.migrations.timelines import Timeline, Timelines

_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
_CONTEXT = MigrationContext.configure(
    dialect_name="postgresql", opts={"target_metadata": sa.MetaData(naming_convention=NAMING_CONVENTION)}
)
_TRUTH = {"true": "1", "false": "0"}  # as text, what both databases take for a boolean
_VALUE = re.compile(
    r"""ALTER\s+TYPE\s+(?P<type>[\w."]+)\s+(?:ADD\s+VALUE\s+(?:IF\s+NOT\s+EXISTS\s+)?'(?P<new>(?:[^']|'')+)'
    |RENAME\s+VALUE\s+'(?P<old>[^']+)'\s+TO\s+'(?P<to>[^']+)')|DROP\s+TYPE\s+(?:IF\s+EXISTS\s+)?(?P<gone>[\w."]+)""",
    re.IGNORECASE | re.VERBOSE,
)


def options(
    timelines: Timelines, line: Timeline, connection: sa.Connection, scripts: ScriptDirectory
) -> dict[str, Any]:
    """Alembic's options to compare the tables of `line` with its models, and to write what differs."""
    found = environment_options(timelines, line)
    owned = [table for table in line.metadata.tables.values() if timelines.owner(table.name) is line]
    catalog = Catalog(connection, line.metadata, owned)
    partitions = cache(lambda: set(_partitions(connection)))  # not before Alembic has begun its transaction

    def include_name(name: str | None, kind: str, parents: Any) -> bool:
        is_child = kind == "table" and name in partitions()
        return not is_child and bool(found["include_name"](name, kind, parents))

    def include_object(item: Any, name: str | None, kind: str, reflected: bool, compared: Any) -> bool:
        if kind == "check_constraint" and reflected and ("check", item.table.name, str(name)) in catalog.wanted:
            return False  # PostgreSQL gives a name to one that has none in the models
        return bool(found["include_object"](item, name, kind, reflected, compared))

    models = sa.MetaData(naming_convention=line.metadata.naming_convention)
    for table in line.metadata.sorted_tables:
        table.to_metadata(models)  # to undo a step that makes a CHECK, Alembic adds that to the table once more
    return found | {
        "target_metadata": models,
        "include_name": include_name,
        "include_object": include_object,
        "render_as_batch": True,  # also on PostgreSQL: the revision made there must run on SQLite
        "render_item": _render_item,
        "compare_type": True,
        "compare_server_default": True,
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
        "process_revision_directives": _finish_revision,
        "catalog": catalog,
        "scripts": scripts,
    }


def _partitions(connection: sa.Connection) -> Iterator[str]:
    """Parts of partitioned tables: whoever makes them drops them."""
    if connection.dialect.name == "postgresql":
        yield from connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relispartition"))


class AlterEnumOp(MigrateOperation):
    """A statement for the types of PostgreSQL, which another database leaves out."""

    def __init__(self, name: str, *statements: str, commits: bool = False) -> None:
        self.table_name, self.statements, self.commits = name, statements, commits

    def reverse(self) -> "AlterEnumOp":
        return AlterEnumOp(self.table_name)  # PostgreSQL takes no value out of an enum


class _Hint(MigrateOperation):
    def __init__(self, *lines: str) -> None:
        self.lines = [f"# {line}" for line in lines]


def complete(migration: MigrationContext, upgrades: ops.UpgradeOps) -> list[Difference]:
    """Add to what autogenerate found what it cannot see; what only a person can write is given back."""
    catalog: Catalog = migration.opts["catalog"]
    _new_values(migration, upgrades)
    rest = [one for one in catalog.differences() if not _is_covered(one, set(_names(upgrades)))]
    for one in [one for one in rest if one.kind == "index"]:
        if change := _changed_index(migration.opts["target_metadata"], one):
            upgrades.ops.append(ops.ModifyTableOps(one.table, change))
            rest.remove(one)
    return rest


def _names(container: ops.OpContainer) -> Iterator[tuple[str, str]]:
    """Tables with what the operations name of them; `*` is all but indexes."""
    for operation in container.ops:
        match operation:
            case ops.OpContainer():
                yield from _names(operation)
            case ops.CreateTableOp() | ops.DropTableOp():
                yield operation.table_name, "*"
            case ops.CreateForeignKeyOp():
                yield operation.source_table, "foreign key"
            case ops.AddColumnOp():
                yield operation.table_name, operation.column.name
            case AlterEnumOp():
                yield from (("", statement) for statement in operation.statements)
        for attribute in ("index_name", "constraint_name", "column_name"):
            if name := getattr(operation, attribute, None):
                yield str(getattr(operation, "table_name", "")), str(name)
        if getattr(operation, "constraint_type", None) == "foreignkey":
            yield str(getattr(operation, "table_name", "")), "foreign key"


def _is_covered(one: Difference, named: set[tuple[str, str]]) -> bool:
    if one.kind == "enum value":
        kind, _, value = one.name.partition(".")
        created = one.actual is None and any(name == "*" or table for table, name in named)
        return created or any(kind in statement and value in statement for table, statement in named if not table)
    if one.kind == "index":
        return (one.table, one.name) in named
    name = one.kind if one.kind == "foreign key" else one.name
    return (one.table, name) in named or (one.table, "*") in named


def _changed_index(metadata: sa.MetaData, one: Difference) -> list[MigrateOperation]:
    """The steps for an index that Alembic does not see on SQLite, as it is on an expression."""
    indexes = metadata.tables[one.table].indexes if one.table in metadata.tables else ()
    steps: list[MigrateOperation] = []
    if one.actual is not None:
        was = re.fullmatch(r"(UNIQUE )?\((.*?)\)\s*(?:WHERE (.*))?", one.actual)
        if was is None:
            return []
        where: dict[str, Any] = {f"{name}_where": sa.text(was[3]) for name in ("sqlite", "postgresql") if was[3]}
        old = ops.CreateIndexOp(one.name, one.table, [sa.text(was[2])], unique=bool(was[1]), **where)
        steps.append(ops.DropIndexOp(one.name, one.table, _reverse=old))
    return steps + [ops.CreateIndexOp.from_index(index) for index in indexes if index.name == one.name]


def _new_values(migration: MigrationContext, upgrades: ops.UpgradeOps) -> None:
    """Add steps for values of enums that the models have and the revisions never made, whatever this database is."""
    known = _enums(migration.opts["scripts"])
    statements: dict[str, dict[str, None]] = {}
    for table in migration.opts["target_metadata"].sorted_tables:
        if not migration.opts["include_object"](table, table.name, "table", False, None):
            continue
        for column in table.columns:
            kind = native_type(column.type, _POSTGRESQL)
            if not isinstance(kind, postgresql.ENUM) or _adds(upgrades, column):
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


def _adds(upgrades: ops.UpgradeOps, column: sa.Column[Any]) -> bool:
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


def _without_checks(container: ops.OpContainer) -> None:
    """The CHECK of an enum that is text is a step of its own: as part of the type it would be made twice."""
    for place, step in enumerate(container.ops):
        if isinstance(step, ops.OpContainer):
            _without_checks(step)
        elif isinstance(step, ops.AlterColumnOp) and getattr(step.modify_type, "create_constraint", False):
            step.modify_type = _plain_type(step.modify_type)
        elif isinstance(step, ops.AddColumnOp) and getattr(step.column.type, "create_constraint", False):
            old = step.column
            new = sa.Column(
                old.name, _plain_type(old.type), nullable=old.nullable, default=old.default, comment=old.comment
            )
            new.server_default = old.server_default
            container.ops[place] = ops.AddColumnOp(step.table_name, new)


def _plain_type(kind: Any) -> TypeEngine[Any]:
    return sa.String(kind.length) if isinstance(kind, sa.Enum) else sa.Boolean()


def _enums(scripts: ScriptDirectory) -> dict[str, list[str]]:
    """The enums that the revisions have made, with their values."""
    known: dict[str, list[str]] = {}
    for script in reversed(list(scripts.walk_revisions())):
        for step in read(script).steps:
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


def _finish_revision(migration: MigrationContext, _revision: Any, scripts: list[ops.MigrationScript]) -> None:
    """Add what Alembic does not see, values for rows that are there, and hints where only a person can decide."""
    upgrades, downgrades = scripts[0].upgrade_ops, scripts[0].downgrade_ops
    if upgrades is None or downgrades is None:
        return
    rest = complete(migration, upgrades)
    _without_checks(upgrades)
    upgrades.reverse_into(downgrades)
    downgrades.ops = [step for step in downgrades.ops if not isinstance(step, AlterEnumOp)]
    if (
        upgrades.is_empty()
        and not rest
        and migration.config is not None
        and migration.config.attributes.get("skip_empty")
    ):
        scripts.clear()
        return
    losses = [operation.loses for operation in describe(upgrades) if operation.loses]
    _fill(upgrades, migration.opts["target_metadata"])
    _fill(downgrades, sa.MetaData())
    _drop_new_types(migration, upgrades, downgrades)
    _as_written(downgrades, _made(migration.opts["scripts"]))
    if losses:
        reason = 'Say why that is right, beside `revision`: destructive = "nobody used it since 1.2"'
        upgrades.ops.insert(0, _Hint(f"Loses data: {'; '.join(losses)}.", reason))
    if rest:
        upgrades.ops.insert(0, _Hint("Write by hand, in both directions:", *(f"- {one}" for one in rest)))
    for last in (steps.ops[-1] for steps in (upgrades, downgrades) if steps.ops):
        if isinstance(last, _Hint):
            last.lines.append("pass")


def _fill(container: ops.OpContainer, metadata: sa.MetaData) -> None:
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


def _needs_value(table: str, column: str) -> _Hint:
    advice = "give it a server_default, or add it nullable, fill it, and make it required then."
    return _Hint(f"Fails where there are rows, as {table}.{column} is required:", advice)


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


def _drop_new_types(migration: MigrationContext, upgrades: ops.UpgradeOps, downgrades: ops.DowngradeOps) -> None:
    known = _enums(migration.opts["scripts"])
    steps = [step for one in upgrades.ops for step in (one.ops if isinstance(one, ops.OpContainer) else [one])]
    kinds = [native_type(column.type, _POSTGRESQL) for step in steps for column in _columns(step)]
    for name in dict.fromkeys(kind.name for kind in kinds if isinstance(kind, postgresql.ENUM)):
        if name not in known:
            quoted = _POSTGRESQL.identifier_preparer.quote(str(name))
            downgrades.ops.append(AlterEnumOp(str(name), f"DROP TYPE IF EXISTS {quoted}"))


def _as_written(container: ops.OpContainer, made: dict[tuple[str, str], MigrateOperation]) -> None:
    """Make again what a revision made in the words of that revision: those of this database are not the other's."""
    for place, step in enumerate(container.ops):
        if isinstance(step, ops.OpContainer):
            _as_written(step, made)
        elif isinstance(step, (ops.CreateIndexOp, ops.CreateCheckConstraintOp)):
            container.ops[place] = made.get((step.table_name, _name(step)), step)


def _made(scripts: ScriptDirectory) -> dict[tuple[str, str], MigrateOperation]:
    """The indexes and CHECKs that the revisions have made, by table and name."""
    found: dict[tuple[str, str], MigrateOperation] = {}
    for script in reversed(list(scripts.walk_revisions())):
        for step in read(script).steps:
            table = step.to_table(_CONTEXT) if isinstance(step, ops.CreateTableOp) else sa.Table("none", sa.MetaData())
            checks = [one for one in table.constraints if isinstance(one, sa.CheckConstraint)]
            for made in (step, *map(ops.CreateCheckConstraintOp.from_constraint, checks)):
                if isinstance(made, (ops.CreateIndexOp, ops.CreateCheckConstraintOp)):
                    found[made.table_name, _name(made)] = made
    return found


def _name(step: ops.CreateIndexOp | ops.CreateCheckConstraintOp) -> str:
    return str(step.index_name if isinstance(step, ops.CreateIndexOp) else step.constraint_name)


def _render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Revisions outlive the application's code, so they name SQLAlchemy's types where they can."""
    if kind == "server_default":
        return _render_default(getattr(item, "arg", None))
    if kind != "type":
        return False
    if isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, postgresql.JSONB):  # away from PostgreSQL it would be rendered with a `Text` nothing imports
        autogen.imports.add("from sqlalchemy.dialects import postgresql")
        return "postgresql.JSONB()"
    if isinstance(item, TypeDecorator) and not type(item).__module__.startswith("sqlalchemy."):
        autogen.imports.add(f"import {type(item).__module__}")
    return False


def _render_default(default: Any) -> str | Literal[False]:
    """A default in words for both databases, not in those of this one."""
    if isinstance(default, sa.sql.functions.now):
        return "sa.func.now()"
    if isinstance(default, str):  # Alembic takes quotes off its ends
        return repr(default)
    return f"sa.text({default.text!r})" if isinstance(default, sa.TextClause) else False


@renderers.dispatch_for(AlterEnumOp)
def _render_enum(_context: AutogenContext, operation: AlterEnumOp) -> list[str]:
    if not operation.statements:
        return []
    lines = ['if op.get_context().dialect.name == "postgresql":']
    if operation.commits:  # a new value can be used when it is committed
        lines.append("    with op.get_context().autocommit_block():")
    indent = "    " * len(lines)
    return ["\n".join([*lines, *(f"{indent}op.execute({statement!r})" for statement in operation.statements)])]


@renderers.dispatch_for(_Hint)
def _render_hint(_context: AutogenContext, hint: _Hint) -> list[str]:
    return hint.lines


@write_hooks.register("format")
def _format(path: str, _options: Any) -> None:
    """Format a new revision, where the development tools are installed."""
    if importlib.util.find_spec("ruff"):
        for arguments in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
            subprocess.run([sys.executable, "-m", "ruff", *arguments, path], check=True)  # noqa: S603
