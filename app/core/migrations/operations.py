"""What a revision does, found out by running it without a database."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from alembic.config import Config
from alembic.operations import BatchOperations, MigrateOperation, Operations, ops
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Executable, ForeignKey, String, types
from sqlalchemy.engine import Dialect, IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

_NAME = r"""(?:["`\[]?\w+["`\]]?\s*\.\s*)?["`\[]?\w+["`\]]?"""
_IF = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?:ONLY\s+)?"
_STATEMENT = re.compile(
    rf"""(?:^|[;()$]|\b(?:BEGIN|THEN|ELSE|LOOP)\b)\s*(?P<verb>
        CREATE\s+(?:(?:GLOBAL|LOCAL|TEMP|TEMPORARY|UNLOGGED)\s+)*TABLE
        |DROP\s+TABLE|ALTER\s+TABLE|TRUNCATE(?:\s+TABLE)?
        |INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|MERGE\s+INTO|DELETE\s+FROM|UPDATE(?:\s+OR\s+\w+)?(?!\s+SET\b)
        |CREATE\s+(?:UNIQUE\s+)?INDEX\b[^;(]*?\sON
        |DROP\s+INDEX(?:\s+CONCURRENTLY)?
        |(?:CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?(?:CONSTRAINT\s+)?TRIGGER\b[^;(]*?\sON
    )\s+{_IF}(?P<names>{_NAME}(?:\s*,\s*{_NAME})*)(?=(?P<rest>[^;]*))""",
    re.IGNORECASE | re.VERBOSE,
)
_RENAMED = re.compile(rf"\s+RENAME\s+TO\s+({_NAME})", re.IGNORECASE)
_DROPPED_COLUMN = re.compile(r"\bDROP\s+(?!CONSTRAINT|DEFAULT|NOT\b|IDENTITY|EXPRESSION)", re.IGNORECASE)
_NOISE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Operation:
    """One step of a revision: the tables it touches, those it makes, and what it destroys, in words.

    `indexes` are touched by their names alone; `refers` are the tables that its foreign keys lead to.
    """

    name: str
    tables: tuple[str, ...] = ()
    creates: tuple[str, ...] = ()
    loses: str | None = None
    indexes: tuple[str, ...] = ()
    refers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} on {', '.join(self.tables)}" if self.tables else self.name


@dataclass
class Recording:
    """What a revision does in one direction; `unread` says why the rest of it could not be run without a database."""

    operations: list[Operation] = field(default_factory=list)
    unread: str | None = None

    @property
    def losses(self) -> list[str]:
        """What is destroyed, in words."""
        return [operation.loses for operation in self.operations if operation.loses]


def record(
    config: Config, scripts: ScriptDirectory, revision: Script, dialect: str, *, down: bool = False
) -> Recording:
    """Run the revision's `upgrade` (or `downgrade`) with nothing behind it, and note each operation.

    To the revision this is Alembic's offline mode; queries find no rows.
    """
    recording, rest = Recording(), io.StringIO()
    with EnvironmentContext(config, scripts, as_sql=True) as environment, redirect_stdout(sys.stderr):
        environment.configure(dialect_name=dialect, output_buffer=rest)
        with _noting(environment.get_context(), recording.operations):
            try:
                getattr(revision.module, "downgrade" if down else "upgrade")()
            except Exception as exc:  # a revision may raise anything where it finds no rows
                recording.unread = f"{type(exc).__name__}: {exc}"
    recording.operations += read_sql(rest.getvalue())  # what went by `op.get_context()`
    return recording


def describe(operation: MigrateOperation) -> list[Operation]:
    """The operation in our words; several for raw SQL with several statements."""
    tables = [getattr(operation, "table_name", None)]  # an index can be dropped by its name alone
    creates: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    refers: tuple[str, ...] = ()
    loses = None
    match operation:
        case ops.OpContainer():
            return [found for inner in operation.ops for found in describe(inner)]
        case ops.ExecuteSQLOp():
            return list(read_sql(str(operation.sqltext)))
        case ops.CreateTableOp():
            creates = (operation.table_name,)
            refers = _referred(*(item for item in operation.columns if isinstance(item, SchemaItem)))
        case ops.AddColumnOp():
            refers = _referred(operation.column)
        case ops.DropIndexOp(table_name=None):
            indexes = (str(operation.index_name),)
        case ops.RenameTableOp():
            creates = (operation.new_table_name,)
            tables += creates
        case ops.CreateForeignKeyOp():
            tables, refers = [operation.source_table], (operation.referent_table,)
        case ops.BulkInsertOp():
            tables = [operation.table.name]
        case ops.DropTableOp():
            loses = f"drops {operation.table_name}"
        case ops.DropColumnOp():
            loses = f"drops {operation.table_name}.{operation.column_name}"
        case ops.AlterColumnOp():
            loses = _narrowed(operation)
    touched = tuple(table for table in tables if table)
    return [Operation(_name(operation), touched, creates, loses, indexes, refers)]


def read_sql(sql: str) -> Iterator[Operation]:
    """The statements in `sql` that change tables, as far as their keywords tell."""
    for found in _STATEMENT.finditer(_NOISE.sub(" ", sql)):
        verb, rest = " ".join(found["verb"].upper().split()), found["rest"]
        verb = re.sub(r"(INDEX|TRIGGER)\b.*", r"\1", verb)  # without what it is called
        tables = tuple(map(_bare, found["names"].split(",")))
        if verb == "DROP INDEX":
            yield Operation(f"execute {verb}", indexes=tables)
            continue
        creates = tables if verb.startswith("CREATE") and verb.endswith("TABLE") else ()
        loses = None
        if renamed := _RENAMED.match(rest):
            creates = (_bare(renamed[1]),)
            tables += creates
        if verb.startswith(("DROP TABLE", "TRUNCATE")):
            loses = f"{'drops' if verb == 'DROP TABLE' else 'empties'} {', '.join(tables)}"
        elif verb == "DELETE FROM" and not re.search(r"\bWHERE\b", rest, re.IGNORECASE):
            loses = f"empties {tables[0]}"
        elif verb == "ALTER TABLE" and _DROPPED_COLUMN.search(rest):
            loses = f"drops a column of {tables[0]}"
        yield Operation(f"execute {verb}", tables, creates, loses)


def _bare(name: str) -> str:
    return re.sub(r"""["`\[\]\s]""", "", name).rpartition(".")[2]


def _referred(*items: SchemaItem) -> tuple[str, ...]:
    """The tables that foreign keys in a column or a constraint lead to."""
    keys = [key for item in items for key in getattr(item, "foreign_keys", getattr(item, "elements", ()))]
    return tuple(key.target_fullname.split(".")[-2] for key in keys if isinstance(key, ForeignKey))


def _name(operation: MigrateOperation) -> str:
    """`DropTableOp` is `drop_table` to whoever writes revisions."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(operation).__name__.removesuffix("Op")).lower()


def _narrowed(operation: ops.AlterColumnOp) -> str | None:
    if operation.modify_type is None:
        return None
    column = f"{operation.table_name}.{operation.column_name}"
    old, new = (types.to_instance(item) for item in (operation.existing_type, operation.modify_type))
    if operation.existing_type is None:
        return f"changes the type of {column}, perhaps to a narrower one (existing_type is not named)"
    return None if _holds(new, old) else f"turns {column} from {old!r} into {new!r}"


def _holds(new: TypeEngine[Any], old: TypeEngine[Any]) -> bool:
    """Whether every value of `old` fits into `new`."""
    if isinstance(new, types.Numeric) and isinstance(old, types.Numeric):
        return _fits(new.precision, old.precision) and _fits(new.scale, old.scale)
    if isinstance(new, String):
        return _fits(new.length, old.length if isinstance(old, String) else None)
    sizes = (types.SmallInteger, types.Integer, types.BigInteger)
    if isinstance(new, sizes) and isinstance(old, sizes):
        return _size(new) >= _size(old)
    return new._type_affinity is old._type_affinity


def _fits(new: int | None, old: int | None) -> bool:
    """A limit of None is none."""
    return new is None or (old is not None and new >= old)


def _size(kind: TypeEngine[Any]) -> int:
    return 2 if isinstance(kind, types.SmallInteger) else 8 if isinstance(kind, types.BigInteger) else 4


class _NoRows:
    """What `op.get_bind()` gives in a recording: notes the statement, finds nothing."""

    def __init__(self, dialect: Dialect, note: Callable[[str], None]) -> None:
        self.dialect = dialect
        self._note = note

    def execute(self, statement: Executable | str, *_args: Any, **_options: Any) -> IteratorResult[Any]:
        self._note(str(statement))
        return IteratorResult(SimpleResultMetaData(["nothing"]), iter(()))

    exec_driver_sql = execute

    def scalar(self, statement: Executable, *args: Any, **options: Any) -> Any:
        return self.execute(statement, *args, **options).scalar()

    def scalars(self, statement: Executable, *args: Any, **options: Any) -> Any:
        return self.execute(statement, *args, **options).scalars()


@contextmanager
def _noting(context: MigrationContext, operations: list[Operation]) -> Iterator[None]:
    """Let `alembic.op` note operations instead of carrying them out."""

    def invoke(operation: MigrateOperation) -> Any:
        operations.extend(describe(operation))
        # A revision may fill the table that it makes.
        return operation.to_table(context) if isinstance(operation, ops.CreateTableOp) else None

    @contextmanager
    def batch_alter_table(table_name: str, schema: str | None = None, **_options: Any) -> Iterator[BatchOperations]:
        with Operations.batch_alter_table(op, table_name, schema, recreate="never") as batch:
            vars(batch).update(invoke=invoke, get_bind=get_bind)
            yield batch

    def get_bind() -> _NoRows:
        return _NoRows(context.dialect, lambda sql: operations.extend(read_sql(sql)))

    with Operations.context(context) as op:
        # Alembic's proxy works for its own class alone, so the object is changed, not subclassed.
        vars(op).update(invoke=invoke, batch_alter_table=batch_alter_table, get_bind=get_bind)
        yield
