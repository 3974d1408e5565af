"""Timelines: which revisions belong together, and which tables they own.

The shared timeline holds the tables of core and of the modules with `migrations = "shared"`. A module with
`migrations = "own"` and every external package has a folder of revisions and a version table of its own.
A timeline owns the tables that its models declare and those that carry the prefix of its modules, and no others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from sqlalchemy import MetaData, Select, TableClause, column, select

from app.core.configs import PROJECT_ROOT
from app.core.db.installation import KnownRevisions
from app.core.exceptions import ConfigError
from app.core.models import metadata as application
from app.core.modules import Module, installed_modules, table_owner

SHARED = "shared"
VERSION_TABLE = "alembic_version"
MIGRATIONS = PROJECT_ROOT / "migrations"


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

    @classmethod
    def of(cls, line: Timeline, script: Script, *, applied: bool) -> "RevisionInfo":
        """Describe the revision in `script`."""
        given = script.down_revision or ()
        parents = (given,) if isinstance(given, str) else tuple(given)
        return cls(line.name, script.revision, parents, script.doc, Path(script.path), applied)


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
        """The owner of `table`: the package whose models declare it, else the longest prefix."""
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


def installed_timelines() -> Timelines:
    """The timelines of this process."""
    return timelines_of(installed_modules(), application)


def timelines_of(modules: Sequence[Module], metadata: MetaData) -> Timelines:
    """The timelines of `modules`, which are in load order; `metadata` is that of the internal ones.

    The shared one, which the `alembic` command works on, comes first, then own ones of modules, those of packages last.
    """
    internal = [module for module in modules if not module.external]
    sharing = tuple(module.short_name for module in internal if module.migrations == "shared")
    return Timelines(
        Timeline(SHARED, "shared", MIGRATIONS / "versions", VERSION_TABLE, metadata, ("core", *sharing)),
        *(_timeline(module, "own", metadata) for module in internal if module.migrations == "own"),
        *(_timeline(module, "external", _external(module)) for module in modules if module.external),
    )


def _timeline(module: Module, kind: Literal["own", "external"], metadata: MetaData) -> Timeline:
    name = module.short_name
    return Timeline(name, kind, module.versions, f"{VERSION_TABLE}_{name}", metadata, (name,))


def _external(module: Module) -> MetaData:
    metadata = metadata_of(module.models) if module.models else MetaData()
    for table in metadata.tables.values():
        for key in table.foreign_keys:
            if (target := key.target_fullname.rpartition(".")[0]) not in metadata.tables:
                raise ConfigError(
                    f"{module.short_name}: {table}.{key.parent.name} has a foreign key to {target}, which is not one "
                    "of its own tables: keep the id without the foreign key"
                )
    return metadata


def metadata_of(models: ModuleType) -> MetaData:
    """The metadata that a package's models use: its own, or that of the declarative base in there."""
    candidates = [getattr(item, "metadata", item) for item in vars(models).values()]
    found = {id(item): item for item in candidates if isinstance(item, MetaData)}
    if len(found) > 1:
        raise ConfigError(f"{models.__name__} holds several MetaData: put one declarative base there")
    return next(iter(found.values()), MetaData())


@lru_cache
def known_revisions() -> tuple[KnownRevisions, ...]:
    """Every installed timeline that has revisions; read from their files once per process."""
    found = []
    for line in installed_timelines().values():
        scripts = ScriptDirectory(str(MIGRATIONS), version_locations=[str(line.versions)])
        revisions = frozenset(script.revision for script in scripts.walk_revisions())
        version: Select[str] = select(column("version_num")).select_from(TableClause(line.version_table))
        if revisions:
            found.append(KnownRevisions(revisions, frozenset(scripts.get_heads()), version))
    return tuple(found)


def between(line: Timeline, scripts: ScriptDirectory, upper: Any, lower: Any, **options: bool) -> list[Script]:
    """The revisions after `lower` up to `upper`, newest first."""
    try:
        return list(scripts.iterate_revisions(upper, lower, **options))
    except (RevisionError, AssertionError) as exc:  # the latter for an empty name
        reason = str(exc).rstrip(".") or "no revision is named"
        raise MigrationError(f"timeline {line.name}: {reason}. Name one that kit migrate history lists") from exc
