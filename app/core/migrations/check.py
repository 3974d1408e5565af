"""What must not be in a revision: another's tables, and loss of data without a reason."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.operations.ops import UpgradeOps
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.core.migrations.autogenerate import complete, options
from app.core.migrations.env import quiet
from app.core.migrations.operations import Operation, describe
from app.core.migrations.reader import Recording, read
from app.core.migrations.timelines import Timeline, Timelines
from app.core.migrations.values import HOLE


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


def revision_faults(
    timelines: Timelines, line: Timeline, config: Config, wanted: Collection[str] | None = None
) -> list[Fault]:
    """What is wrong with what the revisions of `line` do, in both directions: of all, or of those in `wanted`."""
    revisions = list(ScriptDirectory.from_config(config).walk_revisions())[::-1]
    ups = [read(revision) for revision in revisions]
    # A table without an owner, as that of a module taken out, belongs to the timeline that made it.
    made = {table for recording in ups for operation in recording.operations for table in operation.creates}
    faults: list[Fault] = []
    for revision, up in zip(revisions, ups, strict=True):
        if wanted is None or revision.revision in wanted:
            down = read(revision, down=True)
            faults += _strangers(timelines, line, revision, up.operations + down.operations, made)
            faults += _losses(line, revision, up)
            faults += _unread(line, revision, up, down)
    return faults


def _strangers(
    timelines: Timelines, line: Timeline, revision: Script, operations: list[Operation], made: set[str]
) -> Iterator[Fault]:
    for operation in dict.fromkeys(operations):
        if operation.everything:
            yield Fault("owner", line.name, f"{operation} reaches the tables of all", "Name tables", revision.revision)
        for table in operation.refers:
            owner = timelines.owner(table)
            if owner not in (line, None) and (line.kind == "external" or timelines.prefix(table) != "core"):
                what = f"{operation} has a foreign key to {table}, which belongs to {_owner_of(timelines, table)}"
                yield Fault("owner", line.name, what, "Keep the id without the foreign key", revision.revision)
        for name in operation.mentions:
            if (owner := timelines.owner(name)) not in (line, None):
                what = f"{operation} names {name}, which belongs to {_owner_of(timelines, name)}"
                yield Fault("owner", line.name, what, f"Leave {name} to its owner", revision.revision)
        for table in (*operation.tables, *filter(None, map(timelines.indexed, operation.indexes))):
            owner = timelines.owner(table)
            if owner is line or table == line.version_table or (owner is None and table in made) or HOLE in table:
                continue
            whose = (
                f"which belongs to {_owner_of(timelines, table)}" if owner else "which belongs to no installed module"
            )
            fix = f"Leave {table} to its owner" if owner else f"Name tables of this timeline {line.owners[-1]}_<name>"
            yield Fault("owner", line.name, f"{operation.name} on {table}, {whose}", fix, revision.revision)


def _owner_of(timelines: Timelines, table: str) -> str:
    owner = timelines.owner(table)
    prefix = timelines.prefix(table)
    name = prefix if owner and prefix in owner.owners else owner and owner.name
    return f"{name} (timeline {owner.name})" if owner and name != owner.name else f"{name}"


def _losses(line: Timeline, revision: Script, up: Recording) -> Iterator[Fault]:
    reason = getattr(revision.module, "destructive", None)
    if isinstance(reason, str) and reason.strip():
        return
    if up.losses:
        fix = f'Say why that is right in {revision.path}: destructive = "nobody used it since 1.2"'
        # Whoever installs a package cannot write into its revisions; the data is the package's own.
        ours = line.kind != "external"
        yield Fault("destructive", line.name, f"loses data: it {', '.join(up.losses)}", fix, revision.revision, ours)


def _unread(line: Timeline, revision: Script, *recordings: Recording) -> Iterator[Fault]:
    for reason in dict.fromkeys(reason for recording in recordings for reason in recording.unread):
        what = f"not read: {reason}"
        yield Fault("unread", line.name, what, "Look at it yourself", revision.revision, blocking=False)


def model_faults(timelines: Timelines, line: Timeline) -> Iterator[Fault]:
    """Tables that no revision can be written for; `kit module validate` looks after the names of modules' tables."""
    for table in line.metadata.tables.values():
        prefix = timelines.prefix(table.name)
        if table.schema is not None and timelines.owner(table.name) in (line, None):
            what = f"its table {table} has a schema"
            yield Fault("model", line.name, what, "Take it away: timelines live in the schema of the connection")
        elif line.kind == "external" and prefix is not None and prefix not in line.owners:
            what = f"its model's table {table} is named like those of {prefix}"
            yield Fault("model", line.name, what, f"Call it {line.name}_<name>, or leave {line.name} out of MODULES")


def differences(timelines: Timelines, line: Timeline, config: Config, connection: Connection) -> Iterator[Fault]:
    """What a revision would write, and what it could not."""
    ours = line.kind != "external"
    scripts = ScriptDirectory.from_config(config)
    try:
        with quiet():
            context = MigrationContext.configure(connection, opts=options(timelines, line, connection, scripts))
            found = produce_migrations(context, context.opts["target_metadata"]).upgrade_ops or UpgradeOps()
            rest = complete(context, found)
    except DBAPIError as exc:
        what = f"models and tables were not compared: {str(exc.orig).partition(chr(10))[0]}"
        yield Fault("unread", line.name, what, "Compare them where tables can be made: --scratch", blocking=False)
        return
    for operation in describe(found):
        fix = f"Write it down: kit migrate revision --timeline {line.name} -m ..."
        yield Fault("difference", line.name, f"models and tables differ: {operation}", fix, blocking=ours)
    for one in rest:
        yield Fault("difference", line.name, str(one), "Write it by hand: kit migrate revision --empty", blocking=ours)


def merge_fix(line: Timeline) -> str:
    """What to do about a timeline that two branches have continued."""
    return f"Join them: kit migrate merge --timeline {line.name}"
