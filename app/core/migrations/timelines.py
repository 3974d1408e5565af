"""Which revisions belong together, and whose every table is.

The shared timeline holds the tables of core and of the modules with `migrations = "shared"`. A module with
`migrations = "own"` and every external package has a folder of revisions and a version table of its own.
A timeline owns what its models declare and what carries the prefix of its modules; nothing else is its business.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from sqlalchemy import MetaData, Select

from app.core.configs import PROJECT_ROOT
from app.core.exceptions import ConfigError
from app.core.modules import Module, table_owner
from app.core.process import Slot

SHARED = "shared"
VERSION_TABLE = "alembic_version"


class MigrationError(ConfigError):
    """A migration cannot or must not run; the message names timeline, revision and fix."""


@dataclass(frozen=True)
class Timeline:
    """One line of revisions: `owners` are the names that its tables begin with."""

    name: str
    kind: Literal["shared", "own", "external"]
    versions: Path
    version_table: str
    metadata: MetaData
    owners: tuple[str, ...]


@dataclass(frozen=True)
class RevisionInfo:
    """One revision of a timeline, and whether the database has it."""

    timeline: str
    revision: str
    parents: tuple[str, ...]
    message: str
    path: Path
    applied: bool


class Timelines(Mapping[str, Timeline]):
    """The installed timelines by name, in the order in which they are upgraded."""

    def __init__(self, *timelines: Timeline) -> None:
        self._by_name = {timeline.name: timeline for timeline in timelines}
        self._by_owner = {owner: timeline for timeline in timelines for owner in timeline.owners}
        self._version_tables = {VERSION_TABLE, *(timeline.version_table for timeline in timelines)}
        if len(self._by_name) < len(timelines) or len(self._by_owner) < sum(len(line.owners) for line in timelines):
            raise MigrationError(f"two timelines of one name: {', '.join(line.name for line in timelines)}")

    def __getitem__(self, name: str) -> Timeline:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def chosen(self, name: str | None) -> list[Timeline]:
        """The timeline `name`, or all of them."""
        return list(self.values()) if name is None else [self.one(name)]

    def one(self, name: str | None) -> Timeline:
        """The timeline `name`, or the only one."""
        if name is None and len(self) > 1:
            raise MigrationError(f"there are several timelines: name one with --timeline ({', '.join(self)})")
        if name is not None and name not in self:
            raise MigrationError(f"there is no timeline {name}; there are {', '.join(self)}")
        return self[name or next(iter(self))]

    def owner(self, table: str) -> Timeline | None:
        """Whose `table` is: of the package whose models declare it, else of the longest prefix."""
        if table in self._version_tables:
            return None
        by_prefix = self._by_owner.get(self.prefix(table) or "")
        if by_prefix and table in by_prefix.metadata.tables:
            return by_prefix
        declaring = (line for line in self.values() if line.kind == "external" and table in line.metadata.tables)
        return next(declaring, by_prefix)

    def prefix(self, table: str) -> str | None:
        """The module, `core` among them, whose prefix `table` carries."""
        return table_owner(table, self._by_owner)

    def indexed(self, index: str) -> str | None:
        """The table that has this index, as the models declare it."""
        declared = (table for line in self.values() for table in line.metadata.tables.values())
        return next((table.name for table in declared if index in {found.name for found in table.indexes}), None)


@dataclass(frozen=True)
class KnownRevisions:
    """What this code knows of a timeline: its revisions, its heads, and the query for those the database has."""

    revisions: frozenset[str]
    heads: frozenset[str]
    applied: Select[str]


expected_revisions = Slot[Callable[[], tuple[KnownRevisions, ...]]]()
"""Gives the revisions that the code of this process expects the database to have."""


def timelines_of(modules: Sequence[Module], metadata: MetaData) -> Timelines:
    """The timelines of `modules`, which are in load order; `metadata` is that of the internal ones."""
    internal = [module for module in modules if not module.external]
    return Timelines(
        shared_timeline(metadata, tuple(module.short_name for module in internal if module.migrations == "shared")),
        *(_own(module, metadata) for module in internal if module.migrations == "own"),
        *(_external(module) for module in modules if module.external),
    )


def shared_timeline(metadata: MetaData, modules: tuple[str, ...]) -> Timeline:
    """The timeline of core and `modules`, which the `alembic` command works on."""
    versions = PROJECT_ROOT / "migrations" / "versions"
    return Timeline(SHARED, "shared", versions, VERSION_TABLE, metadata, ("core", *modules))


def _own(module: Module, metadata: MetaData) -> Timeline:
    name = module.short_name
    return Timeline(name, "own", module.versions, f"{VERSION_TABLE}_{name}", metadata, (name,))


def _external(module: Module) -> Timeline:
    name = module.short_name
    models = module.models
    metadata = metadata_of(models) if models else MetaData()
    for table in metadata.tables.values():
        for key in table.foreign_keys:
            if (target := key.target_fullname.rpartition(".")[0]) not in metadata.tables:
                raise ConfigError(
                    f"{name}: {table}.{key.parent.name} has a foreign key to {target}, which is not one of its own "
                    "tables: keep the id without the foreign key"
                )
    return Timeline(name, "external", module.versions, f"{VERSION_TABLE}_{name}", metadata, (name,))


def metadata_of(models: ModuleType) -> MetaData:
    """The metadata that a package's models use: its own, or that of the declarative base in there."""
    candidates = [getattr(item, "metadata", item) for item in vars(models).values()]
    found = {id(item): item for item in candidates if isinstance(item, MetaData)}
    if len(found) > 1:
        raise ConfigError(f"{models.__name__} holds several MetaData: put one declarative base there")
    return next(iter(found.values()), MetaData())


def revision_info(line: Timeline, script: Script, applied: bool) -> RevisionInfo:
    """What `kit` says of a revision."""
    parents = script.down_revision or ()
    return RevisionInfo(
        line.name,
        script.revision,
        (parents,) if isinstance(parents, str) else tuple(parents),
        script.doc,
        Path(script.path),
        applied,
    )


def between(line: Timeline, scripts: ScriptDirectory, upper: Any, lower: Any, **options: bool) -> list[Script]:
    """The revisions after `lower` up to `upper`, newest first."""
    try:
        return list(scripts.iterate_revisions(upper, lower, **options))
    except (RevisionError, AssertionError) as exc:  # the latter for an empty name
        reason = str(exc).rstrip(".") or "no revision is named"
        raise MigrationError(f"timeline {line.name}: {reason}. Name one that kit migrate history lists") from exc
