"""What must not be in a revision: another's tables, and loss of data without a reason."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from app.core.db.migration_operations import Operation, Recording, record
from app.core.db.timelines import Timeline, Timelines


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and what to do about it."""

    kind: Literal["heads", "owner", "destructive", "pending", "difference", "model"]
    timeline: str
    what: str
    fix: str
    revision: str | None = None

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
            faults += _strangers(timelines, line, revision, [*up.operations, *down.operations], made)
            faults += _losses(line, revision, up)
    return faults


def _strangers(
    timelines: Timelines, line: Timeline, revision: Script, operations: list[Operation], made: set[str]
) -> Iterator[Fault]:
    for operation in dict.fromkeys(operations):
        for table in operation.tables:
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
    if lost := [operation.loses for operation in up.operations if operation.loses]:
        fix = f'Say why that is right in {revision.path}: destructive = "nobody used it since 1.2"'
        yield Fault("destructive", line.name, f"loses data: it {', '.join(lost)}", fix, revision.revision)
