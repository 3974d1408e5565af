"""Read what a revision does from its source: nothing of it is run but the constructors of SQLAlchemy and Alembic.

Names, loops over literals, f-strings and the revision's own functions are followed; of a condition both branches are
read; rows are never there. What cannot be followed, and could touch a table, is reported as unread.
"""

import ast
import builtins
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations, ops
from alembic.operations.base import AbstractOperations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script

from app.core.migrations.refusals import HOLE, Recording
from tools.migrations.effects import describe, read_sql

_DEPTH = 20
_HARMLESS = ("comment", "existing_", "nullable", "postgresql_", "rows", "schema", "server_default", "sqlite_", "unique")
_LOOPS = (list, tuple, dict, set, frozenset, range, enumerate, zip, reversed)
_BINARY: dict[type[ast.operator], Callable[..., Any]] = {ast.Add: operator.add, ast.Mod: operator.mod}


PURE = ("dict", "enumerate", "len", "list", "range", "reversed", "set", "sorted", "str", "tuple", "zip")
_CONSTRUCTORS = ("sqlalchemy.sql", "sqlalchemy.dialects", "sqlalchemy.schema", "sqlalchemy.types")
DATA = (str, int, float, bool, list, tuple, dict, set, frozenset, range, type(None), AbstractOperations)


class Unknown:
    """A value that only a run would give."""


class Database(Unknown):
    """The value of `op.get_bind()` and `op.get_context()`."""


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


@dataclass
class Reading(Recording):
    """The operations of a revision in one direction, also as Alembic has them."""

    steps: list[MigrateOperation] = field(default_factory=list)


def read(revision: Script, down: bool = False) -> Reading:
    """Read the revision's `upgrade`, or its `downgrade`."""
    reader = _Reader(revision.module)
    if function := reader.functions.get("downgrade" if down else "upgrade"):
        reader.call(function, (), {})
    return reader.recording


class _Reader(ast.NodeVisitor):
    """Visiting a statement notes what it does; visiting an expression gives its value, or UNKNOWN."""

    def __init__(self, module: ModuleType) -> None:
        self.recording = Reading()
        self.module = vars(module)
        tree = ast.parse(Path(str(module.__file__)).read_text())
        self.functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self.op = Noted(self._note)
        self.scope: dict[str, Any] = {}
        self.depth = 0

    def visit(self, node: ast.AST) -> Any:
        try:
            return super().visit(node)
        except Exception as exc:  # whatever a constructor raises for what is not known
            return self._unread(node, f"{type(exc).__name__}: {exc}")

    def generic_visit(self, node: ast.AST) -> Any:
        super().generic_visit(node)
        return UNKNOWN

    def call(self, function: ast.FunctionDef, given: Iterable[Any], named: dict[str, Any]) -> Any:
        """Read the body of a function of the revision; what it gives back is not known."""
        if self.depth < _DEPTH:
            self.depth += 1
            outer, arguments = self.scope, function.args
            names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            self.scope = {**dict.fromkeys(names, UNKNOWN), **dict(zip(names, given, strict=False)), **named}
            self._run(function.body)
            self.scope = outer
            self.depth -= 1
        return UNKNOWN

    # Statements

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scope[node.name] = node

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self.scope[name] = opened(sys.modules.get(alias.name if alias.asname else name))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            found = getattr(sys.modules.get(str(node.module)), alias.name, UNKNOWN)
            self.scope[alias.asname or alias.name] = opened(found)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.visit(node.value)
        for target in node.targets:
            self._bind(target, value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._bind(node.target, self.visit(ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)))

    def visit_For(self, node: ast.For) -> None:
        for _ in self._each(node):
            self._run(node.body)
        self._run(node.orelse)

    def visit_If(self, node: ast.If) -> None:
        """Read both branches; a name that differs after them is not known."""
        self.visit(node.test)
        before = self.scope.copy()
        self._run(node.body)
        other, self.scope = self.scope, before
        self._run(node.orelse)
        for name in self.scope.keys() | other.keys():
            if self.scope.get(name) is not other.get(name):
                self.scope[name] = UNKNOWN

    def visit_With(self, node: ast.With) -> None:
        self._with(node.items, node.body)

    # Expressions

    def visit_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Any:
        return "".join(str(filled(self.visit(part))) for part in node.values)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> Any:
        return self.visit(node.value)

    def visit_Tuple(self, node: ast.Tuple) -> Any:
        return tuple(self.visit(element) for element in node.elts)

    def visit_List(self, node: ast.List) -> Any:
        return [self.visit(element) for element in node.elts]

    def visit_Dict(self, node: ast.Dict) -> Any:
        keys = [self.visit(key) if key else UNKNOWN for key in node.keys]
        values = [self.visit(value) for value in node.values]
        return dict(zip(keys, values, strict=True)) if all(isinstance(key, str) for key in keys) else UNKNOWN

    def visit_ListComp(self, node: ast.ListComp | ast.GeneratorExp) -> Any:
        made = [self.visit(node.elt) for _ in self._each(node.generators[0])]
        return UNKNOWN if unknown(made) or len(node.generators) > 1 else made

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> Any:
        return self.visit_ListComp(node)

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in self.scope:
            return self.scope[node.id]
        if node.id in self.functions:
            return self.functions[node.id]
        found = self.module.get(node.id, getattr(builtins, node.id) if node.id in PURE else UNKNOWN)
        return self.op if getattr(found, "__name__", "") == "alembic.op" else opened(found)

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        return self._attribute(self.visit(node.value), node.attr)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        base, key = self.visit(node.value), self.visit(node.slice)
        return base[key] if isinstance(base, (dict, list, str, tuple)) and not unknown([key]) else UNKNOWN

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(left, str) or isinstance(right, str):
            left, right = filled(left), filled(right)
        return (
            UNKNOWN if unknown([left, right]) or type(node.op) not in _BINARY else _BINARY[type(node.op)](left, right)
        )

    def visit_Call(self, node: ast.Call) -> Any:
        base = self.visit(node.func.value) if isinstance(node.func, ast.Attribute) else UNKNOWN
        given = [self.visit(one) for one in node.args]
        named = {str(one.arg): self.visit(one.value) for one in node.keywords}
        with_database = any(isinstance(one, (AbstractOperations, Database)) for one in (*given, *named.values()))
        if isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if isinstance(base, AbstractOperations):
                return self._operate(node, base, name, given, named)
            if base is DATABASE:
                return self._ask(node, name, given)
            if with_database and name in ("create", "drop"):
                return self._make(node, base, name)
        function = (
            self._attribute(base, node.func.attr) if isinstance(node.func, ast.Attribute) else self.visit(node.func)
        )
        if isinstance(function, ast.FunctionDef):
            return self.call(function, given, named)
        if may_call(function):
            known = {key: one for key, one in named.items() if one is not UNKNOWN}
            return function(*(sa.types.NullType() if one is UNKNOWN else one for one in given), **known)
        return self._unread(node, "not followed") if with_database else UNKNOWN

    # What they have in common

    def _run(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.scope[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            fits = isinstance(value, Sequence) and len(value) == len(target.elts)
            for one, part in zip(target.elts, value if fits else [UNKNOWN] * len(target.elts), strict=True):
                self._bind(one, part)

    def _each(self, loop: ast.For | ast.comprehension) -> Iterator[None]:
        found = self.visit(loop.iter)
        for item in list(found)[:1000] if isinstance(found, _LOOPS) else [UNKNOWN]:
            self._bind(loop.target, item)
            yield

    def _with(self, items: list[ast.withitem], body: list[ast.stmt]) -> None:
        if not items:
            return self._run(body)
        with self._entered(items[0].context_expr) as found:
            if target := items[0].optional_vars:
                self._bind(target, found)
            return self._with(items[1:], body)

    @contextmanager
    def _entered(self, node: ast.expr) -> Iterator[Any]:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "batch_alter_table"
        ):
            table = self.visit(node.args[0]) if node.args else UNKNOWN
            with self.op.batch_alter_table(filled(table), recreate="never") as batch:
                vars(batch).update(invoke=self.op.invoke)
                yield batch
        else:
            yield self.visit(node)

    def _attribute(self, base: Any, name: str) -> Any:
        if base is DATABASE:
            return DATABASE if name in ("bind", "connection", "impl") else UNKNOWN
        return UNKNOWN if base is UNKNOWN or name.startswith("__") else getattr(base, name)

    def _operate(
        self, node: ast.Call, op: AbstractOperations, name: str, given: list[Any], named: dict[str, Any]
    ) -> Any:
        if name in ("get_bind", "get_context"):
            return DATABASE
        if name == "bulk_insert":
            given[1:] = [[]]
        if unknown(given) or unknown(one for key, one in named.items() if not key.startswith(_HARMLESS)):
            self._unread(node, "with a value that only a run would give")
        known = {key: one for key, one in named.items() if one is not UNKNOWN}
        return getattr(op, name)(*map(filled, given), **known)

    def _ask(self, node: ast.Call, name: str, given: list[Any]) -> Any:
        if name in ("execute", "exec_driver_sql", "scalar", "scalars"):
            if not given or given[0] is UNKNOWN:
                return self._unread(node, "with a value that only a run would give")
            self._note(ops.ExecuteSQLOp(given[0]))
        return DATABASE if name in ("begin", "begin_nested", "connect", "execution_options") else UNKNOWN

    def _make(self, node: ast.Call, base: Any, name: str) -> Any:
        """`create` and `drop` of a table or a type."""
        if isinstance(base, sa.Table):
            self._note(ops.CreateTableOp.from_table(base) if name == "create" else ops.DropTableOp.from_table(base))
        elif isinstance(base, sa.Enum):
            made = ops.AddColumnOp("", sa.Column("enum", base))
            self.recording.steps.append(made if name == "create" else ops.ExecuteSQLOp(f"DROP TYPE {base.name}"))
        else:
            self._unread(node, "not followed")
        return UNKNOWN

    def _note(self, step: MigrateOperation) -> None:
        self.recording.steps.append(step)
        found = list(read_sql(str(step.sqltext))) if isinstance(step, ops.ExecuteSQLOp) else describe(step)
        self.recording.operations += found
        self.recording.unread += [one.unread for one in found if one.unread]
        self.recording.unread += [
            f"{one.name} on a name that only a run would give" for one in found if HOLE in str(one)
        ]

    def _unread(self, node: ast.AST, reason: str) -> Unknown:
        self.recording.unread.append(f"line {getattr(node, 'lineno', '?')}: {ast.unparse(node)[:60]} ({reason})")
        return UNKNOWN
