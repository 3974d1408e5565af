"""What must not be in a revision: another's tables, and loss of data without a reason."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from app.core.migrations.env import environment_options
from app.core.migrations.operations import Operation, Recording, describe, record
from app.core.migrations.timelines import Timeline, Timelines


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and what to do about it; without `blocking` it is only worth knowing."""

    kind: Literal["heads", "owner", "destructive", "pending", "difference", "model", "unread"]
    timeline: str
    what: str
    fix: str
    revision: str | None = None
    blocking: bool = True

    def __str__(self) -> str:
        where = f"{self.timeline} {self.revision}" if self.revision else self.timeline
        return f"{where}: {self.what}. {self.fix}"


def revision_faults(
    timelines: Timelines, line: Timeline, config: Config, dialect: str, wanted: Collection[str] | None = None
) -> list[Fault]:
    """What is wrong with what the revisions of `line` do, in both directions: of all, or of those in `wanted`."""
    scripts = ScriptDirectory.from_config(config)
    revisions = list(scripts.walk_revisions())[::-1]
    ups = [record(config, scripts, revision, dialect) for revision in revisions]
    # A table without an owner, as that of a module taken out, belongs to the timeline that made it.
    made = {table for recording in ups for operation in recording.operations for table in operation.creates}
    faults: list[Fault] = []
    for revision, up in zip(revisions, ups, strict=True):
        if wanted is None or revision.revision in wanted:
            down = record(config, scripts, revision, dialect, down=True)
            faults += _strangers(timelines, line, revision, up.operations + down.operations, made)
            faults += _losses(line, revision, up)
            faults += _unread(line, revision, up, down)
    return faults


def _strangers(
    timelines: Timelines, line: Timeline, revision: Script, operations: list[Operation], made: set[str]
) -> Iterator[Fault]:
    for operation in dict.fromkeys(operations):
        for table in operation.refers:
            owner = timelines.owner(table)
            if owner not in (line, None) and (line.kind == "external" or timelines.prefix(table) != "core"):
                what = f"{operation} has a foreign key to {table}, which belongs to {_owner_of(timelines, table)}"
                yield Fault("owner", line.name, what, "Keep the id without the foreign key", revision.revision)
        for table in (*operation.tables, *filter(None, map(timelines.indexed, operation.indexes))):
            owner = timelines.owner(table)
            if owner is line or table == line.version_table or (owner is None and table in made):
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
    for reason in dict.fromkeys(recording.unread for recording in recordings if recording.unread):
        fix = "Leave out what needs rows there: if not op.get_context().as_sql"
        what = f"cannot be run without a database ({reason})"
        yield Fault("unread", line.name, what, fix, revision.revision, blocking=False)


def model_faults(timelines: Timelines, line: Timeline) -> Iterator[Fault]:
    """Tables of a package that are named like those of a module; `kit module validate` looks after modules."""
    for table in sorted(line.metadata.tables) if line.kind == "external" else ():
        prefix = timelines.prefix(table)
        if prefix is not None and prefix not in line.owners:
            what = f"its model's table {table} is named like those of {prefix}"
            yield Fault("model", line.name, what, f"Call it {line.name}_<name>, or leave {line.name} out of MODULES")


def differences(timelines: Timelines, line: Timeline, connection: Connection) -> Iterator[Fault]:
    """What autogenerate would write."""
    context = MigrationContext.configure(connection, opts=environment_options(timelines, line))
    script = produce_migrations(context, line.metadata)
    if script.upgrade_ops is None:
        return
    for operation in describe(script.upgrade_ops):
        fix = f"Write it down: kit migrate revision --timeline {line.name} -m ..."
        what = f"models and tables differ: {operation}"
        yield Fault("difference", line.name, what, fix, blocking=line.kind != "external")


def merge_fix(line: Timeline) -> str:
    """What to do about a timeline that two branches have continued."""
    return f"Join them: kit migrate merge --timeline {line.name}"
