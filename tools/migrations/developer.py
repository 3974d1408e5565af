"""Migrations as developers use them: write and join revisions, and check them against models and tables."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from alembic import command
from alembic.autogenerate import produce_migrations
from alembic.operations.ops import UpgradeOps
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from app.core.migrations.env import quiet, reading
from app.core.migrations.migrate import Migrations, merge_fix
from app.core.migrations.refusals import Fault
from app.core.migrations.timelines import MigrationError, RevisionInfo, Timeline, Timelines
from tools.migrations.autogenerate import complete, options
from tools.migrations.effects import describe
from tools.migrations.reader import read


class DeveloperMigrations(Migrations):
    """The timelines of one database, with what changes their revisions; a checkout reads these completely."""

    read = staticmethod(read)

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
            if faults := list(_model_faults(self.timelines, line)):
                raise MigrationError("\n".join(map(str, faults)))
            self._must_be_current(line)
            config = self.config(line, skip_empty=not empty)
            written += _paths(command.revision(config, message, autogenerate=not empty))
        return written

    def faults_of(self, paths: Sequence[Path]) -> list[Fault]:
        """Check the revisions at `paths` by their source."""
        return [
            fault
            for line in self.timelines.values()
            for script in self.scripts(line).walk_revisions()
            if Path(script.path) in paths
            for fault in self.revision_faults(line, [RevisionInfo.of(line, script, applied=False)])
        ]

    def merge(self, message: str = "merge", timeline: str | None = None) -> list[Path]:
        """Join the heads of one timeline, or of each that has several."""
        _check_message(message)
        torn = [line for line in self.timelines.chosen(timeline) if len(self.scripts(line).get_heads()) > 1]
        return [path for line in torn for path in _paths(command.merge(self.config(line), "heads", message))]

    def check(self, timeline: str | None = None) -> list[Fault]:
        """Check the timelines, their revisions, and the tables against the models."""
        with reading(self.url) as connection:
            return [fault for line in self.timelines.chosen(timeline) for fault in self._check(line, connection)]

    def _check(self, line: Timeline, connection: Connection) -> Iterator[Fault]:
        models = list(_model_faults(self.timelines, line))
        yield from models
        yield from self.revision_faults(line)
        heads = self.scripts(line).get_heads()
        if len(heads) > 1:
            yield Fault("heads", line.name, f"has several heads: {', '.join(sorted(heads))}", merge_fix(line))
        elif ahead := self.ahead(connection, line):
            yield Fault("pending", line.name, f"{len(ahead)} not run here yet: {_named(ahead)}", "Run kit migrate")
        elif not models:
            yield from self._differences(line, connection)

    def _differences(self, line: Timeline, connection: Connection) -> Iterator[Fault]:
        """Report what a revision would write, and what it could not."""
        ours = line.kind != "external"
        try:
            with quiet():
                opts = options(self.timelines, line, connection, self.scripts(line))
                context = MigrationContext.configure(connection, opts=opts)
                found = produce_migrations(context, opts["target_metadata"]).upgrade_ops or UpgradeOps()
                rest = complete(context, found)
        except DBAPIError as exc:
            what = f"models and tables were not compared: {str(exc.orig).partition(chr(10))[0]}"
            yield Fault("unread", line.name, what, "Compare them where tables can be made: --scratch", blocking=False)
            return
        for operation in describe(found):
            fix = f"Write it down: kit migrate revision --timeline {line.name} -m ..."
            yield Fault("difference", line.name, f"models and tables differ: {operation}", fix, blocking=ours)
        for one in rest:
            fix = "Write it by hand: kit migrate revision --empty"
            yield Fault("difference", line.name, str(one), fix, blocking=ours)

    def _must_be_current(self, line: Timeline) -> None:
        with reading(self.url) as connection:
            if ahead := self.ahead(connection, line):
                raise MigrationError(f"timeline {line.name}: not run here yet: {_named(ahead)}; first run kit migrate")


@contextmanager
def scratch_database(server: URL | None = None) -> Iterator[DeveloperMigrations]:
    """The installed timelines on a new database, gone when the block ends: on SQLite, or at a PostgreSQL server."""
    if server is None:
        with TemporaryDirectory() as folder:
            yield DeveloperMigrations(URL.create("sqlite", database=str(Path(folder) / "scratch.db")))
        return
    name = f"kit_scratch_{token_hex(6)}"
    engine = create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield DeveloperMigrations(server.set(database=name))
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def _model_faults(timelines: Timelines, line: Timeline) -> Iterator[Fault]:
    """Tables that no revision can be written for; `kit module validate` looks after the names of modules' tables."""
    for table in line.metadata.tables.values():
        prefix = timelines.prefix(table.name)
        if table.schema is not None and timelines.owner(table.name) in (line, None):
            what = f"its table {table} has a schema"
            yield Fault("model", line.name, what, "Take it away: timelines live in the schema of the connection")
        elif line.kind == "external" and prefix is not None and prefix not in line.owners:
            what = f"its model's table {table} is named like those of {prefix}"
            yield Fault("model", line.name, what, f"Call it {line.name}_<name>, or leave {line.name} out of MODULES")


def _named(infos: Iterable[RevisionInfo]) -> str:
    return ", ".join(info.revision for info in infos)


def _check_message(message: str) -> None:
    # It becomes the docstring of the file.
    if not message.strip() or not message.isprintable() or set(message) & set('"\\'):
        raise MigrationError("a message is one line of text without double quotes and backslashes")


def _paths(written: Script | Sequence[Script | None] | None) -> list[Path]:
    scripts = [written] if isinstance(written, Script) else written or ()
    return [Path(script.path) for script in scripts if script is not None]
