"""Refuse revisions by their source, before any of them runs: others' tables, and loss of data without a reason.

Nothing of a revision is run to judge it. Here only operations on tables named by literals are read, so that a service
can do it; `kit migrate check`, in a checkout, also follows names and loops and reads SQL text.
"""

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from alembic.script import Script

from app.core.migrations.timelines import Timeline, Timelines

HOLE = "kit_unread"
"""Stands in a name for what is not known."""

_ON_TABLE = ("add_column", "alter_column", "create_table", "drop_column", "drop_table", "rename_table")
# Here the table comes after a name of their own.
_CONSTRAINTS = ("create_check_constraint", "create_foreign_key", "create_primary_key", "create_unique_constraint")
_NAMED = (*_CONSTRAINTS, "create_index", "drop_constraint", "drop_index")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and what to do about it; without `blocking` it is only worth knowing."""

    kind: Literal["heads", "owner", "destructive", "pending", "difference", "fails", "model", "rows", "unread"]
    timeline: str
    what: str
    fix: str
    revision: str | None = None
    blocking: bool = True

    def __str__(self) -> str:
        where = f"{self.timeline} {self.revision}" if self.revision else self.timeline
        return f"{where}: {self.what}. {self.fix}"


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


@dataclass
class Recording:
    """The operations of a revision in one direction, and what of it is not known."""

    operations: list[Operation] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def losses(self) -> list[str]:
        """Everything that is destroyed, in words."""
        return [operation.loses for operation in self.operations if operation.loses]


Reader = Callable[[Script, bool], Recording]
"""Reads a revision: its downgrade where the second argument says so."""


def read_literals(revision: Script, down: bool) -> Recording:
    """Read the operations of `upgrade` or `downgrade`, and of the revision's functions that it names."""
    tree = ast.parse(Path(revision.path).read_bytes())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    first = "downgrade" if down else "upgrade"
    waiting = [first] if first in functions else []
    recording = Recording()
    for function in waiting:  # grows while it is walked
        nodes = list(ast.walk(functions[function]))
        names = [node.id for node in nodes if isinstance(node, ast.Name) and node.id in functions]
        waiting += [name for name in dict.fromkeys(names) if name not in waiting]
        batches = _batches(nodes)
        for node in nodes:
            if isinstance(node, ast.Call) and (operation := _operation(node, batches)):
                recording.operations.append(operation)
    return recording


def _batches(nodes: Iterable[ast.AST]) -> dict[tuple[ast.AST, str], str]:
    """Map each call in a `with op.batch_alter_table("shop_products") as batch`, with that name, to the table.

    The name alone does not tell: autogenerate calls every batch `batch_op`.
    """
    found: dict[tuple[ast.AST, str], str] = {}
    for block in nodes:  # outer blocks first
        if not isinstance(block, ast.With):
            continue
        for item in block.items:
            begun, name = item.context_expr, item.optional_vars
            if isinstance(begun, ast.Call) and isinstance(name, ast.Name):
                named = [one.value for one in begun.keywords if one.arg == "table_name"]
                table = next(map(_literal, [*begun.args, *named]), HOLE)
                found |= {(node, name.id): table for node in ast.walk(block)}
    return found


def _operation(call: ast.Call, batches: Mapping[tuple[ast.AST, str], str]) -> Operation | None:
    match call.func:
        case ast.Attribute(value=ast.Name(id=base), attr=name) if name in _ON_TABLE + _NAMED:
            given = [_literal(one) for one in call.args]
        case _:
            return None
    batch = batches.get((call, base))
    if base != "op" and batch is None:
        return None
    own = given.pop(0) if name in _NAMED and given else HOLE
    named = [_literal(one.value) for one in call.keywords if one.arg == "table_name"]
    if name == "drop_index" and batch is None and not (given or named):
        return Operation(name, indexes=(own,))
    given = [*named, *given, HOLE, HOLE]
    table = given.pop(0) if batch is None else batch
    refers = tuple(_referred(call)) + ((given[0],) if name == "create_foreign_key" else ())
    if name == "rename_table":
        return Operation(name, (table, given[0]), (given[0],))
    creates = (table,) if name == "create_table" else ()
    column = f".{given[0]}" if name == "drop_column" else ""
    loses = f"drops {table}{column}" if name in ("drop_table", "drop_column") else None
    return Operation(name, (table,), creates, loses, refers=refers)


def _referred(call: ast.Call) -> Iterator[str]:
    """The tables that foreign keys in the arguments lead to."""
    for key in ast.walk(call):
        if isinstance(key, ast.Call) and getattr(key.func, "attr", "").startswith("ForeignKey"):
            texts = [node.value for node in ast.walk(key) if isinstance(node, ast.Constant)]
            yield from (text.split(".")[-2] for text in texts if isinstance(text, str) and "." in text)


def _literal(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else HOLE


def revision_faults(
    timelines: Timelines, line: Timeline, revisions: Sequence[Script], wanted: Collection[str], read: Reader
) -> list[Fault]:
    """Judge what those of `revisions`, all of a timeline, do that are `wanted`, in both directions."""
    ups = {revision: read(revision, False) for revision in revisions}
    # A table without an owner, as that of a module taken out, belongs to the timeline that made it.
    made = {table for recording in ups.values() for operation in recording.operations for table in operation.creates}
    faults: list[Fault] = []
    for revision, up in ups.items():
        if revision.revision in wanted:
            down = read(revision, True)
            for operation in dict.fromkeys(up.operations + down.operations):
                for what, fix in _strangers(timelines, line, operation, made):
                    faults.append(Fault("owner", line.name, what, fix, revision.revision))
            faults += _losses(line, revision, up)
            for reason in dict.fromkeys(up.unread + down.unread):
                what = f"not read: {reason}"
                faults.append(Fault("unread", line.name, what, "Look at it yourself", revision.revision, False))
    return faults


def _strangers(timelines: Timelines, line: Timeline, operation: Operation, made: set[str]) -> Iterator[tuple[str, str]]:
    """Name what an operation does to others' tables, and what to do instead."""
    if operation.everything:
        yield f"{operation} reaches the tables of all", "Name tables"
    for table in operation.refers:
        owner = timelines.owner(table)
        if owner not in (line, None) and (line.kind == "external" or timelines.prefix(table) != "core"):
            whose = _owner_of(timelines, table)
            yield f"{operation} has a foreign key to {table}, {whose}", "Keep the id without the foreign key"
    for name in operation.mentions:
        if timelines.owner(name) not in (line, None):
            yield f"{operation} names {name}, {_owner_of(timelines, name)}", f"Leave {name} to its owner"
    for table in (*operation.tables, *filter(None, map(timelines.indexed, operation.indexes))):
        owner = timelines.owner(table)
        if owner is line or table == line.version_table or (owner is None and table in made) or HOLE in table:
            continue
        fix = f"Leave {table} to its owner" if owner else f"Name tables of this timeline {line.owners[-1]}_<name>"
        yield f"{operation.name} on {table}, {_owner_of(timelines, table)}", fix


def _owner_of(timelines: Timelines, table: str) -> str:
    owner = timelines.owner(table)
    if owner is None:
        return "which belongs to no installed module"
    prefix = timelines.prefix(table)
    if prefix not in owner.owners or prefix == owner.name:
        return f"which belongs to {owner.name}"
    return f"which belongs to {prefix} (timeline {owner.name})"


def _losses(line: Timeline, revision: Script, up: Recording) -> Iterator[Fault]:
    reason = getattr(revision.module, "destructive", None)
    if up.losses and not (isinstance(reason, str) and reason.strip()):
        fix = f'Say why that is right in {revision.path}: destructive = "nobody used it since 1.2"'
        # Whoever installs a package cannot write into its revisions; the data is the package's own.
        ours = line.kind != "external"
        yield Fault("destructive", line.name, f"loses data: it {', '.join(up.losses)}", fix, revision.revision, ours)
