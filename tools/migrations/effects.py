"""Describe what the operations and the SQL text of a revision do to tables."""

import logging
import re
from collections.abc import Iterator
from typing import Any

from alembic.operations import MigrateOperation, ops
from sqlalchemy import ForeignKey, String, types
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

from app.core.migrations.refusals import Operation

try:
    from sqlglot import ErrorLevel, exp, parse
    from sqlglot.errors import SqlglotError

    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of each statement that it leaves as text
except ModuleNotFoundError:  # pragma: no cover  in a checkout that only runs the service
    parse = None  # type: ignore[assignment]  # there is no other way to say so

_BODY = re.compile(r"\$(\w*)\$(.*?)\$\1\$", re.DOTALL)
_PLPGSQL = re.compile(r";|\b(?:BEGIN|THEN|ELSE|LOOP|DECLARE)\b", re.IGNORECASE)
_HARMLESS = ("ALTER", "ANALYZE", "BEGIN", "COMMENT", "CREATE", "END", "LOCK", "REFRESH", "REINDEX", "REPLACE", "VACUUM")

_VERBS = {"delete": "DELETE FROM", "insert": "INSERT INTO", "merge": "MERGE INTO", "select": "SELECT INTO"}
_VERBS |= {"truncatetable": "TRUNCATE"}
_STATEMENTS = "INSERT|UPDATE|DELETE|MERGE|TRUNCATE|DROP|ALTER|CREATE|COPY|SELECT|WITH"


def describe(operation: MigrateOperation) -> list[Operation]:
    """Describe the operation; several for a container of operations."""
    tables = [getattr(operation, "table_name", None)]  # an index can be dropped by its name alone
    creates: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    refers: tuple[str, ...] = ()
    loses = None
    match operation:
        case ops.OpContainer():
            return [found for inner in operation.ops for found in describe(inner)]
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
    """True if every value of `old` fits into `new`."""
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


def read_sql(sql: str) -> Iterator[Operation]:
    """Describe the statements in `sql` that change something, in their order."""
    if parse is None:
        yield Operation("execute", mentions=_words(sql), unread="sqlglot is not installed: make setup")
        return
    try:
        statements = parse(sql, read="postgres", error_level=ErrorLevel.RAISE)
    except (SqlglotError, RecursionError):
        try:
            statements = parse(sql, read="sqlite", error_level=ErrorLevel.RAISE)
        except (SqlglotError, RecursionError) as exc:
            reason = str(exc).partition(". ")[0].partition("\n")[0]
            yield Operation("execute", mentions=_words(sql), unread=f"SQL that is not understood: {reason}")
            return
    for statement in statements:
        if statement is not None:
            yield from _read(statement)


def _read(statement: "exp.Expr") -> Iterator[Operation]:
    match statement:
        case exp.Command():
            rest = statement.expression
            yield from _command(f"{statement.this} {rest if isinstance(rest, str) else rest.name}")
        case exp.Create():
            yield from _create(statement)
        case exp.Drop():
            yield from _drop(statement)
        case exp.Alter():
            yield _alter(statement)
        case exp.Grant() | exp.Revoke():
            yield Operation("execute GRANT", mentions=tuple(table.name for table in statement.find_all(exp.Table)))
        case _:
            yield from _write(statement)
    for inner in statement.find_all(exp.Insert, exp.Update, exp.Delete, exp.Merge):
        if inner is not statement and isinstance(inner.parent, exp.CTE):
            yield from _write(inner)
    for call in statement.find_all(exp.Anonymous):
        if call.name.lower() == "setval":
            yield Operation("execute SETVAL", mentions=_words(call.sql()))


def _write(statement: "exp.Expr") -> Iterator[Operation]:
    """Statements that change rows."""
    name = f"execute {_VERBS.get(statement.key, statement.key.upper())}"
    match statement:
        case exp.TruncateTable():
            tables = tuple(table.name for table in statement.expressions)
            yield Operation(name, tables, loses=f"empties {', '.join(tables)}")
        case exp.Copy() if not statement.args.get("kind"):
            pass  # out of the database
        case exp.Insert() | exp.Update() | exp.Merge() | exp.Copy() | exp.Comment():
            yield Operation(name, _target(statement))
        case exp.Select() if into := statement.args.get("into"):
            yield Operation(name, (into.this.name,), (into.this.name,))
        case exp.Delete():
            where = statement.args.get("where")
            (table,) = _target(statement)
            keeps = where is not None and where.find(exp.Column) is not None
            yield Operation(name, (table,), loses=None if keeps else f"empties {table}")


def _target(statement: "exp.Expr") -> tuple[str, ...]:
    found = statement.this if isinstance(statement.this, exp.Table) else statement.find(exp.Table)
    return (found.name,) if found is not None else ()


def _create(statement: "exp.Create") -> Iterator[Operation]:
    kind = str(statement.args["kind"]).upper()
    name = f"execute CREATE {kind}"
    if kind == "TABLE":
        made = _target(statement)
        refers = tuple(one.this.find(exp.Table).name for one in statement.find_all(exp.Reference))
        parent = tuple(one.this.name for one in statement.find_all(exp.PartitionedOfProperty))
        yield Operation(name, (*made, *parent), made, refers=refers)
    elif kind in ("INDEX", "TRIGGER"):
        yield Operation(name, tuple(table.name for table in statement.find_all(exp.Table))[:1])
    elif kind in ("FUNCTION", "PROCEDURE"):
        yield from _body(name, str(statement.expression.this) if statement.expression else "")
    else:
        yield Operation(name, mentions=_target(statement))


def _drop(statement: "exp.Drop") -> Iterator[Operation]:
    kind = str(statement.args["kind"]).upper()
    name = f"execute DROP {kind}"
    names = tuple(table.name for table in statement.find_all(exp.Table))
    if kind == "TABLE":
        yield Operation(name, names, loses=f"drops {', '.join(names)}")
    elif kind == "INDEX":
        yield Operation(name, indexes=names)
    elif kind in ("SCHEMA", "DATABASE"):
        yield Operation(name, everything=True, loses=f"drops a {kind.lower()}")
    else:
        cascades = kind == "TYPE" and statement.args.get("cascade")
        loses = f"drops the columns of type {', '.join(names)}" if cascades else None
        yield Operation(name, mentions=names, loses=loses)


def _alter(statement: "exp.Alter") -> Operation:
    target = statement.this.name
    if str(statement.args["kind"]).upper() != "TABLE":
        return Operation("execute ALTER", indexes=(target,), mentions=(target,))
    creates: tuple[str, ...] = ()
    loses = None
    for action in statement.args.get("actions") or ():
        if isinstance(action, exp.AlterRename):
            creates = (action.this.name,)
        elif isinstance(action, exp.Drop) and str(action.args.get("kind")).upper() == "COLUMN":
            loses = f"drops a column of {target}"
        elif isinstance(action, exp.AlterColumn) and action.args.get("dtype"):
            loses = loses or f"changes the type of {target}.{action.name}, perhaps to a narrower one"
    refers = tuple(one.this.find(exp.Table).name for one in statement.find_all(exp.Reference))
    return Operation("execute ALTER TABLE", (target, *creates), creates, loses, refers=refers)


def _command(text: str) -> Iterator[Operation]:
    verb = text.split(None, 1)[0].upper() if text.strip() else ""
    name = " ".join(["execute", *text.split()[:2]])
    if (verb, *text.upper().split()[1:2]) == ("DROP", "OWNED"):
        yield Operation(name, everything=True, loses="drops what a role owns")
    elif body := _BODY.search(text):
        yield from _body(f"execute {verb}", body[2], text[: body.start()])
    elif verb == "EXECUTE" and (inner := re.fullmatch(r"EXECUTE\s+'((?:[^']|'')*)'", text.strip(), re.IGNORECASE)):
        yield from read_sql(inner[1].replace("''", "'"))
    else:
        unread = None if verb in _HARMLESS else f"{verb} is not understood"
        yield Operation(name, mentions=_words(text), unread=unread)


def _body(name: str, body: str, head: str = "") -> Iterator[Operation]:
    """The statements of a function or a DO block; what is no SQL of its own counts by the names in it."""
    yield Operation(name, mentions=_words(head))
    for part in filter(None, map(str.strip, _PLPGSQL.split(_BODY.sub(r"\2", body)))):
        if re.match(r"EXECUTE\s", part, re.IGNORECASE):
            yield from _command(part)
        elif re.match(rf"(?:{_STATEMENTS})\s", part, re.IGNORECASE):
            yield from read_sql(part)


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(re.findall(r"[A-Za-z_]\w*", text)))
