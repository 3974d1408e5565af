"""Migrations from the program: what `kit` and the tests call. The `alembic` command works beside it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, inspect
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from app.core.configs import PROJECT_ROOT, app_config
from app.core.migrations.check import Fault, differences, merge_fix, model_faults, revision_faults
from app.core.migrations.env import connected, reading
from app.core.migrations.installed import installed_timelines
from app.core.migrations.reader import read
from app.core.migrations.timelines import (
    MigrationError,
    RevisionInfo,
    Timeline,
    Timelines,
    between,
    revision_info,
)


@dataclass(frozen=True)
class TimelineStatus:
    """Where the database is on a timeline, where the code is, and what lies between."""

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


def upgrade(url: URL | None = None) -> None:
    """Bring every timeline of the database up to date."""
    Migrations(url).upgrade()


@contextmanager
def scratch_database(server: URL | None = None) -> Iterator["Migrations"]:
    """The installed timelines on a new database, gone when the block ends: on SQLite, or at a PostgreSQL server."""
    if server is None:
        with TemporaryDirectory() as folder:
            yield Migrations(URL.create("sqlite", database=str(Path(folder) / "scratch.db")))
        return
    name = f"kit_scratch_{token_hex(6)}"
    engine = create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield Migrations(server.set(database=name))
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


class Migrations:
    """The timelines of one database, by default the application's. Every method blocks."""

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
            if faults := [
                fault
                for line in chosen
                for fault in self.revision_faults(line, only=pending[line.name])
                if fault.blocking
            ]:
                raise MigrationError("\n".join(map(str, faults)))
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
        with steps(line, [info.revision for info in pending]) as stepped:
            command.upgrade(self.config(line, connection=connection, on_version_apply=stepped), revision)

    def undo(self, connection: Connection, line: Timeline, scripts: Sequence[Script], revision: str = "base") -> None:
        """Downgrade one timeline to `revision`, which undoes `scripts`; MigrationError names the one that fails."""
        with steps(line, [script.revision for script in scripts]) as stepped:
            command.downgrade(self.config(line, connection=connection, on_version_apply=stepped), revision)

    def behind(self, revision: str = "-1", timeline: str | None = None) -> list[tuple[RevisionInfo, list[str]]]:
        """What `downgrade` would undo, in its order, and what is lost with each."""
        with reading(self.url) as connection:
            behind = self.applied(connection, revision, timeline)
        return [
            (revision_info(line, script, applied=True), read(script, down=True).losses)
            for line, scripts in behind
            for script in scripts
        ]

    def revision(self, message: str, timeline: str | None = None, *, empty: bool = False) -> list[Path]:
        """Write what the models have and the tables have not as revisions: of one timeline, or of each internal one.

        A timeline without a difference gets none, unless `empty` asks for a revision to fill by hand.
        """
        _check_message(message)
        if empty or timeline is not None:
            chosen = [self.timelines.one(timeline)]
        else:
            chosen = [line for line in self.timelines.values() if line.kind != "external"]
        written: list[Path] = []
        for line in chosen:
            if faults := list(model_faults(self.timelines, line)):
                raise MigrationError("\n".join(map(str, faults)))
            self._must_be_current(line)
            config = self.config(line, skip_empty=not empty)
            written += _paths(command.revision(config, message, autogenerate=not empty))
        return written

    def faults_of(self, paths: Sequence[Path]) -> list[Fault]:
        """What is wrong with the revisions at `paths`, by their source."""
        return [
            fault
            for line in self.timelines.values()
            for script in self.scripts(line).walk_revisions()
            if Path(script.path) in paths
            for fault in self.revision_faults(line, only=[revision_info(line, script, applied=False)])
        ]

    def merge(self, message: str = "merge", timeline: str | None = None) -> list[Path]:
        """Join the heads of one timeline, or of each that has several."""
        _check_message(message)
        torn = [line for line in self.timelines.chosen(timeline) if len(self.scripts(line).get_heads()) > 1]
        return [path for line in torn for path in _paths(command.merge(self.config(line), "heads", message))]

    def history(self, timeline: str | None = None) -> list[RevisionInfo]:
        """Every revision, oldest first, and whether the database has it."""
        with reading(self.url) as connection:
            return [info for line in self.timelines.chosen(timeline) for info in self._history(connection, line)]

    def status(self, timeline: str | None = None) -> list[TimelineStatus]:
        """Where the database is on each timeline."""
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

    def check(self, timeline: str | None = None) -> list[Fault]:
        """Everything wrong with the timelines, with what their revisions do, and with the tables against the models."""
        with reading(self.url) as connection:
            return [fault for line in self.timelines.chosen(timeline) for fault in self._check(line, connection)]

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
        """What an upgrade to `revision` would run, in its order; MigrationError for `head` where there are several."""
        scripts = self.scripts(line)
        current = self.current(connection, line)
        heads = scripts.get_heads()
        if revision == "head" and len(heads) > 1:
            raise MigrationError(f"timeline {line.name} has several heads: {', '.join(heads)}. {merge_fix(line)}")
        if not heads:
            return []
        ahead = between(line, scripts, revision, current or "base", implicit_base=True)
        return [revision_info(line, script, applied=False) for script in reversed(ahead)]

    def revision_faults(self, line: Timeline, only: Sequence[RevisionInfo] | None = None) -> list[Fault]:
        """What is wrong with what the timeline's revisions do: with all of them, or with those in `only`."""
        if only is not None and not only:
            return []
        wanted = None if only is None else {info.revision for info in only}
        return revision_faults(self.timelines, line, self.config(line), wanted)

    def _check(self, line: Timeline, connection: Connection) -> Iterator[Fault]:
        models = list(model_faults(self.timelines, line))
        yield from models
        yield from self.revision_faults(line)
        heads = self.scripts(line).get_heads()
        if len(heads) > 1:
            yield Fault("heads", line.name, f"has several heads: {', '.join(sorted(heads))}", merge_fix(line))
        elif ahead := self.ahead(connection, line):
            yield Fault("pending", line.name, f"{len(ahead)} not run here yet: {_named(ahead)}", "Run kit migrate")
        elif not models:
            yield from differences(self.timelines, line, self.config(line), connection)

    def _chosen(self, revision: str, timeline: str | None) -> list[Timeline]:
        everywhere = revision in ("head", "base")
        return self.timelines.chosen(timeline) if everywhere else [self.timelines.one(timeline)]

    def applied(
        self, connection: Connection, revision: str, timeline: str | None
    ) -> list[tuple[Timeline, list[Script]]]:
        """What a downgrade to `revision` would undo, in its order."""
        return [
            (line, between(line, self.scripts(line), current, revision, select_for_downgrade=True))
            for line in reversed(self._chosen(revision, timeline))
            if (current := self.current(connection, line))
        ]

    def _history(self, connection: Connection, line: Timeline) -> list[RevisionInfo]:
        scripts = self.scripts(line)
        current = self.current(connection, line)
        applied = {script.revision for script in between(line, scripts, current, "base")} if current else set()
        return [
            revision_info(line, script, script.revision in applied) for script in reversed([*scripts.walk_revisions()])
        ]

    def _must_be_current(self, line: Timeline) -> None:
        with reading(self.url) as connection:
            if ahead := self.ahead(connection, line):
                raise MigrationError(f"timeline {line.name}: not run here yet: {_named(ahead)}; first run kit migrate")


@contextmanager
def steps(line: Timeline, revisions: Sequence[str]) -> Iterator[Callable[..., None]]:
    """Gives what is to be called after each of `revisions`; whatever one raises is a MigrationError that names it."""
    waiting = list(revisions)

    def stepped(**_: Any) -> None:
        del waiting[:1]

    try:
        yield stepped
    except (MigrationError, CommandError):
        raise
    except Exception as exc:  # a revision may raise anything
        where = waiting[0] if waiting else "its end"
        orig = exc.orig if isinstance(exc, DBAPIError) else None
        reason = str(orig).partition("\n")[0] if orig else f"{type(exc).__name__}: {exc}"
        kept = "Nothing of it was kept, but what it committed by itself"
        raise MigrationError(f"timeline {line.name}: {where} failed: {reason.rstrip('.')}. {kept}.") from exc


def _named(infos: Iterable[RevisionInfo]) -> str:
    return ", ".join(info.revision for info in infos)


def _check_message(message: str) -> None:
    # It becomes the docstring of the file.
    if not message.strip() or not message.isprintable() or set(message) & set('"\\'):
        raise MigrationError("a message is one line of text without double quotes and backslashes")


def _paths(written: Script | Sequence[Script | None] | None) -> list[Path]:
    scripts = [written] if isinstance(written, Script) else written or ()
    return [Path(script.path) for script in scripts if script is not None]
