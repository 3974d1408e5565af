"""Migrations of one database, for `kit`, programs and tests; the `alembic` command works beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from app.core.configs import PROJECT_ROOT, app_config
from app.core.migrations.env import connected, reading
from app.core.migrations.refusals import Fault, Reader, read_literals, revision_faults
from app.core.migrations.timelines import (
    MigrationError,
    RevisionInfo,
    Timeline,
    Timelines,
    between,
    installed_timelines,
)


@dataclass(frozen=True)
class TimelineStatus:
    """The state of a timeline: revisions of the database, of the code, and those between."""

    name: str
    kind: str
    current: tuple[str, ...]
    heads: tuple[str, ...]
    pending: tuple[RevisionInfo, ...]


def alembic_config(url: URL | None = None, **attributes: Any) -> Config:
    """Alembic's configuration for the database at `url`, by default the application's own.

    The address travels as an attribute: in the file's options a `%` of a password would be interpolated.
    """
    config = Config(PROJECT_ROOT / "alembic.ini")
    config.attributes.update(attributes, url=url)
    return config


class Migrations:
    """The timelines of one database, by default the application's. Every method blocks."""

    read: Reader = staticmethod(read_literals)
    """Reads what a revision does, to judge it before it runs."""

    def __init__(self, url: URL | None = None, timelines: Timelines | None = None) -> None:
        self.url = url or app_config.database_url
        self.timelines = timelines or installed_timelines()

    def upgrade(self, revision: str = "head", timeline: str | None = None) -> list[RevisionInfo]:
        """Bring all timelines, or one, up to date; the revisions that were run.

        Of several processes one works and the others wait. A revision that must not run, as it touches another's
        table or loses data without saying why, is a MigrationError before any has run.
        """
        chosen = self._chosen(revision, timeline)
        with connected(self.url) as connection:
            pending = {line.name: self.ahead(connection, line, revision) for line in chosen}
            faults = [fault for line in chosen for fault in self.revision_faults(line, pending[line.name])]
            if refused := [str(fault) for fault in faults if fault.blocking]:
                raise MigrationError("\n".join(refused))
            for line in chosen:
                if pending[line.name]:
                    self.run(connection, line, pending[line.name], revision)
        return [info for infos in pending.values() for info in infos]

    def downgrade(self, revision: str = "-1", timeline: str | None = None) -> None:
        """Take one timeline back to `revision`, which must be named where there are several; to `base` also all."""
        with connected(self.url) as connection:
            for line, scripts in self.applied(connection, revision, timeline):
                self.undo(connection, line, scripts, revision)

    def run(self, connection: Connection, line: Timeline, pending: Sequence[RevisionInfo], revision: str) -> None:
        """Upgrade one timeline to `revision`, which runs `pending`; MigrationError names the one that fails."""
        with failures(line, [info.revision for info in pending]) as applied:
            command.upgrade(self.config(line, connection=connection, applied=applied), revision)

    def undo(self, connection: Connection, line: Timeline, scripts: Sequence[Script], revision: str = "base") -> None:
        """Downgrade one timeline to `revision`, which undoes `scripts`; MigrationError names the one that fails."""
        with failures(line, [script.revision for script in scripts]) as applied:
            command.downgrade(self.config(line, connection=connection, applied=applied), revision)

    def behind(self, revision: str = "-1", timeline: str | None = None) -> list[tuple[RevisionInfo, list[str]]]:
        """List what `downgrade` would undo, in its order, and what is lost with each."""
        with reading(self.url) as connection:
            behind = self.applied(connection, revision, timeline)
        return [
            (RevisionInfo.of(line, script, applied=True), self.read(script, True).losses)
            for line, scripts in behind
            for script in scripts
        ]

    def history(self, timeline: str | None = None) -> list[RevisionInfo]:
        """Every revision, oldest first, and whether the database has it."""
        with reading(self.url) as connection:
            return [info for line in self.timelines.chosen(timeline) for info in self._history(connection, line)]

    def status(self, timeline: str | None = None) -> list[TimelineStatus]:
        """The state of each timeline."""
        with reading(self.url) as connection:
            return [
                TimelineStatus(
                    line.name,
                    line.kind,
                    self.current(connection, line),
                    tuple(self.scripts(line).get_heads()),
                    tuple(info for info in self._history(connection, line) if not info.applied),
                )
                for line in self.timelines.chosen(timeline)
            ]

    def orphans(self) -> list[str]:
        """Tables in the database that no installed timeline owns: left by modules that were taken out, or foreign."""
        versions = {line.version_table for line in self.timelines.values()}
        with reading(self.url) as connection:
            tables = inspect(connection).get_table_names()
        return sorted(table for table in tables if table not in versions and self.timelines.owner(table) is None)

    def config(self, line: Timeline, **attributes: Any) -> Config:
        """Alembic's configuration for one timeline. All share our environment; a package's own is not run."""
        config = alembic_config(self.url, timelines=self.timelines, timeline=line, **attributes)
        config.set_main_option("version_locations", str(line.versions).replace("%", "%%"))
        config.messaging_opts = {"quiet": True}
        return config

    def scripts(self, line: Timeline) -> ScriptDirectory:
        """The timeline's revisions; MigrationError where a file is no revision or names one that is not there."""
        scripts = ScriptDirectory.from_config(self.config(line))
        try:
            scripts.get_heads()
        except Exception as exc:  # a file there may raise anything
            reason = f"{type(exc).__name__}: {exc}"
            raise MigrationError(f"timeline {line.name}: its revisions cannot be read: {reason}") from exc
        return scripts

    def current(self, connection: Connection, line: Timeline) -> tuple[str, ...]:
        """The revisions the database is at; MigrationError for one that the code does not have."""
        context = MigrationContext.configure(connection, opts={"version_table": line.version_table})
        current = context.get_current_heads()
        connection.rollback()
        known = {script.revision for script in self.scripts(line).walk_revisions()}
        if unknown := set(current) - known:
            raise MigrationError(
                f"timeline {line.name}: the database is at {', '.join(sorted(unknown))}, of which {line.versions} "
                "knows nothing: newer code migrated it, or the file was removed; bring that revision back"
            )
        return current

    def ahead(self, connection: Connection, line: Timeline, revision: str = "head") -> list[RevisionInfo]:
        """List what an upgrade to `revision` would run, in its order; MigrationError for several heads."""
        scripts = self.scripts(line)
        current = self.current(connection, line)
        heads = scripts.get_heads()
        if revision == "head" and len(heads) > 1:
            raise MigrationError(f"timeline {line.name} has several heads: {', '.join(heads)}. {merge_fix(line)}")
        if not heads:
            return []
        ahead = between(line, scripts, revision, current or "base", implicit_base=True)
        return [RevisionInfo.of(line, script, applied=False) for script in reversed(ahead)]

    def revision_faults(self, line: Timeline, only: Sequence[RevisionInfo] | None = None) -> list[Fault]:
        """Check by their source what the timeline's revisions do: all of them, or those in `only`."""
        if only is not None and not only:
            return []
        revisions = list(self.scripts(line).walk_revisions())[::-1]
        wanted = {script.revision for script in revisions} if only is None else {info.revision for info in only}
        return revision_faults(self.timelines, line, revisions, wanted, self.read)

    def _chosen(self, revision: str, timeline: str | None) -> list[Timeline]:
        everywhere = revision in ("head", "base")
        return self.timelines.chosen(timeline) if everywhere else [self.timelines.one(timeline)]

    def applied(
        self, connection: Connection, revision: str, timeline: str | None
    ) -> list[tuple[Timeline, list[Script]]]:
        """List what a downgrade to `revision` would undo, in its order."""
        return [
            (line, between(line, self.scripts(line), current, revision, select_for_downgrade=True))
            for line in reversed(self._chosen(revision, timeline))
            if (current := self.current(connection, line))
        ]

    def _history(self, connection: Connection, line: Timeline) -> list[RevisionInfo]:
        scripts = self.scripts(line)
        current = self.current(connection, line)
        applied = {script.revision for script in between(line, scripts, current, "base")} if current else set()
        every = reversed([*scripts.walk_revisions()])
        return [RevisionInfo.of(line, script, applied=script.revision in applied) for script in every]


def merge_fix(line: Timeline) -> str:
    """The fix for a timeline that two branches have continued."""
    return f"Join them: kit migrate merge --timeline {line.name}"


@contextmanager
def failures(line: Timeline, revisions: Sequence[str]) -> Iterator[list[str]]:
    """Turn what one of `revisions` raises into a MigrationError that names it, the first that is not in the list."""
    applied: list[str] = []
    try:
        yield applied
    except (MigrationError, CommandError):
        raise
    except Exception as exc:  # a revision may raise anything
        where = next((revision for revision in revisions if revision not in applied), "its end")
        orig = exc.orig if isinstance(exc, DBAPIError) else None
        reason = str(orig).partition("\n")[0] if orig else f"{type(exc).__name__}: {exc}"
        kept = "Nothing of it was kept, but what it committed by itself"
        raise MigrationError(f"timeline {line.name}: {where} failed: {reason.rstrip('.')}. {kept}.") from exc
