"""The timelines of this process. Importing this imports every model."""

from functools import lru_cache

from alembic.script import ScriptDirectory
from sqlalchemy import Select, TableClause, column, select

from app.core.configs import PROJECT_ROOT
from app.core.migrations.timelines import KnownRevisions, Timelines, timelines_of
from app.core.models import metadata
from app.core.modules import installed_modules


def installed_timelines() -> Timelines:
    """The timelines of this process: the shared one, own ones of modules, those of packages, each by dependency."""
    return timelines_of(installed_modules(), metadata)


@lru_cache
def known_revisions() -> tuple[KnownRevisions, ...]:
    """Every installed timeline that has revisions; read from their files once per process."""
    found = []
    for line in installed_timelines().values():
        scripts = ScriptDirectory(str(PROJECT_ROOT / "migrations"), version_locations=[str(line.versions)])
        revisions = frozenset(script.revision for script in scripts.walk_revisions())
        version: Select[str] = select(column("version_num")).select_from(TableClause(line.version_table))
        if revisions:
            found.append(KnownRevisions(revisions, frozenset(scripts.get_heads()), version))
    return tuple(found)
