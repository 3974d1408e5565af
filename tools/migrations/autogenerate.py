"""Write in revisions what Alembic's autogenerate does not see, and compare both databases with the models."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.ddl.impl import ComparisonResult, DefaultImpl
from alembic.operations import MigrateOperation, ops
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory, write_hooks
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from app.core.db.base import NAMING_CONVENTION, UtcDateTime
from app.core.migrations.dialects import Postgresql, Sqlite
from app.core.migrations.env import environment_options
from app.core.migrations.timelines import Timeline, Timelines
from tools.migrations.backfill import Hint, fill_required
from tools.migrations.catalog import Catalog, Difference
from tools.migrations.effects import describe
from tools.migrations.enums import AlterEnumOp, add_values, drop_new_types
from tools.migrations.reader import read

_CONTEXT = MigrationContext.configure(
    dialect_name="postgresql", opts={"target_metadata": sa.MetaData(naming_convention=NAMING_CONVENTION)}
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

    @cache
    def history() -> list[MigrateOperation]:
        return [step for script in reversed(list(scripts.walk_revisions())) for step in read(script).steps]

    models = sa.MetaData(naming_convention=line.metadata.naming_convention)
    for table in line.metadata.tables.values():
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
        "history": history,
    }


class _Compared(DefaultImpl):
    """Compares by what the database says of both sides."""

    def compare_indexes(self, metadata_index: sa.Index, reflected_index: sa.Index) -> ComparisonResult:
        return self._compare("index", reflected_index.table, reflected_index.name)

    def compare_check_constraint(
        self, metadata_constraint: sa.CheckConstraint, reflected_constraint: sa.CheckConstraint
    ) -> ComparisonResult:
        return self._compare("check", reflected_constraint.table, reflected_constraint.name)

    def compare_server_default(self, inspector_column: Any, metadata_column: sa.Column[Any], *_rendered: Any) -> bool:
        return self._compare("default", metadata_column.table, metadata_column.name).is_different

    def _compare(self, kind: str, table: Any, name: Any) -> ComparisonResult:
        catalog: Catalog = self.context_opts["catalog"]
        alike = catalog.agree(kind, str(table.name), str(name))
        return ComparisonResult.Equal() if alike else ComparisonResult.Different(f"definition of {name}")


class _ComparedPostgresql(_Compared, Postgresql):
    __dialect__ = "postgresql"  # in place of the one without the comparison


class _ComparedSqlite(_Compared, Sqlite):
    __dialect__ = "sqlite"


def _partitions(connection: sa.Connection) -> Iterator[str]:
    """Parts of partitioned tables: whoever makes them drops them."""
    if connection.dialect.name == "postgresql":
        yield from connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relispartition"))


def complete(migration: MigrationContext, upgrades: ops.UpgradeOps) -> list[Difference]:
    """Add to what autogenerate found what it cannot see; what only a person can write is given back."""
    catalog: Catalog = migration.opts["catalog"]
    models = migration.opts["target_metadata"].tables.values()
    is_ours = migration.opts["include_object"]
    tables = [table for table in models if is_ours(table, table.name, "table", False, None)]
    add_values(tables, migration.opts["history"](), upgrades)
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
        return any(kind in statement and value in statement for table, statement in named if not table)
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


def _finish_revision(migration: MigrationContext, _revision: Any, scripts: list[ops.MigrationScript]) -> None:
    """Add what Alembic does not see, values for rows that are there, and hints where only a person can decide."""
    upgrades, downgrades = scripts[0].upgrade_ops, scripts[0].downgrade_ops
    if upgrades is None or downgrades is None:
        return
    rest = complete(migration, upgrades)
    _without_checks(upgrades)
    upgrades.reverse_into(downgrades)
    downgrades.ops = [step for step in downgrades.ops if not isinstance(step, AlterEnumOp)]
    skips = migration.config is not None and migration.config.attributes.get("skip_empty")
    if skips and upgrades.is_empty() and not rest:
        scripts.clear()
        return
    losses = [operation.loses for operation in describe(upgrades) if operation.loses]
    fill_required(upgrades, migration.opts["target_metadata"])
    fill_required(downgrades, sa.MetaData())
    drop_new_types(upgrades, downgrades, migration.opts["history"]())
    _as_written(downgrades, _made(migration.opts["history"]()))
    if losses:
        reason = 'Say why that is right, beside `revision`: destructive = "nobody used it since 1.2"'
        upgrades.ops.insert(0, Hint(f"Loses data: {'; '.join(losses)}.", reason))
    if rest:
        upgrades.ops.insert(0, Hint("Write by hand, in both directions:", *(f"- {one}" for one in rest)))
    for last in (steps.ops[-1] for steps in (upgrades, downgrades) if steps.ops):
        if isinstance(last, Hint):
            last.lines.append("pass")


def _as_written(container: ops.OpContainer, made: dict[tuple[str, str], MigrateOperation]) -> None:
    """Make again what a revision made in the words of that revision: those of this database are not the other's."""
    for place, step in enumerate(container.ops):
        if isinstance(step, ops.OpContainer):
            _as_written(step, made)
        elif isinstance(step, (ops.CreateIndexOp, ops.CreateCheckConstraintOp)):
            container.ops[place] = made.get((step.table_name, _name(step)), step)


def _made(history: list[MigrateOperation]) -> dict[tuple[str, str], MigrateOperation]:
    """The indexes and CHECKs that the revisions have made, by table and name."""
    found: dict[tuple[str, str], MigrateOperation] = {}
    for step in history:
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


@write_hooks.register("format")
def _format(path: str, _options: Any) -> None:
    """Format a new revision, where the development tools are installed."""
    if importlib.util.find_spec("ruff"):
        for arguments in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
            subprocess.run([sys.executable, "-m", "ruff", *arguments, path], check=True)  # noqa: S603
