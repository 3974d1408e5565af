"""What the operations of a revision do to tables, in words."""

import re
from dataclasses import dataclass
from typing import Any

from alembic.operations import MigrateOperation, ops
from sqlalchemy import ForeignKey, String, types
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine


@dataclass(frozen=True)
class Operation:
    """One step of a revision: the tables it touches, those it makes, and what it destroys, in words.

    `indexes` are touched by their names alone; `refers` are the tables that its foreign keys lead to. `mentions` are
    names that only count where they belong to somebody else; `everything` is a step that asks for no names.
    `unread` says why not all of it is known.
    """

    name: str
    tables: tuple[str, ...] = ()
    creates: tuple[str, ...] = ()
    loses: str | None = None
    indexes: tuple[str, ...] = ()
    refers: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()
    everything: bool = False
    unread: str | None = None

    def __str__(self) -> str:
        return f"{self.name} on {', '.join(self.tables)}" if self.tables else self.name


def describe(operation: MigrateOperation) -> list[Operation]:
    """The operation in our words; several for a container of operations."""
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
