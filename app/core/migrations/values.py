"""The values that reading a revision meets: plain data, what SQLAlchemy is made of, and what only a run would give."""

import builtins
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any

from alembic.operations import MigrateOperation, Operations, ops
from alembic.operations.base import AbstractOperations
from alembic.runtime.migration import MigrationContext

HOLE = "kit_unread"  # stands in text for what is not known
PURE = ("dict", "enumerate", "len", "list", "range", "reversed", "set", "sorted", "str", "tuple", "zip")
_CONSTRUCTORS = ("sqlalchemy.sql", "sqlalchemy.dialects", "sqlalchemy.schema", "sqlalchemy.types")
DATA = (str, int, float, bool, list, tuple, dict, set, frozenset, range, type(None), AbstractOperations)


class Unknown:
    """A value that only a run would give."""


class Database(Unknown):
    """What `op.get_bind()` and `op.get_context()` give."""


UNKNOWN, DATABASE = Unknown(), Database()


class Noted(Operations):
    """`alembic.op`, of which nothing is carried out."""

    def __init__(self, note: Callable[[MigrateOperation], None]) -> None:
        super().__init__(MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True}))
        self._note = note

    def invoke(self, operation: MigrateOperation) -> Any:
        self._note(operation)
        # A revision may fill the table that it makes.
        return operation.to_table(self.migration_context) if isinstance(operation, ops.CreateTableOp) else None


def opened(value: Any) -> Any:
    """The value where it may be looked into: plain data, and what SQLAlchemy is made of."""
    if isinstance(value, ModuleType):
        return value if value.__name__.partition(".")[0] == "sqlalchemy" else UNKNOWN
    kind = value if isinstance(value, (type, FunctionType)) else type(value)
    ours = isinstance(value, DATA) or str(getattr(kind, "__module__", "")).startswith("sqlalchemy.")
    return value if ours or any(value is getattr(builtins, name) for name in PURE) else UNKNOWN


def may_call(function: Any) -> bool:
    if function is UNKNOWN:
        return False
    if any(function is getattr(builtins, name) for name in PURE):
        return True
    owner = getattr(function, "__self__", None)
    return isinstance(owner, (str, list, dict)) or str(getattr(function, "__module__", "")).startswith(_CONSTRUCTORS)


def unknown(values: Iterable[Any]) -> bool:
    return any(isinstance(one, Unknown) for one in values)


def filled(value: Any) -> Any:
    """The value for a text or a name: what is not known becomes a hole."""
    if isinstance(value, tuple):
        return tuple(map(filled, value))
    return HOLE if isinstance(value, Unknown) else value
