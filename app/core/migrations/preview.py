"""The SQL of the revisions that have not run yet, without running them on the database that is asked about."""

import io
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alembic import command
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from app.core.migrations.env import connected, reading
from app.core.migrations.migrate import Migrations, failures
from app.core.migrations.timelines import MigrationError, RevisionInfo, Timeline

_WRITES = ("CREATE", "DROP", "ALTER", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH")


def preview(migrations: Migrations, timeline: str | None = None) -> str:
    """The statements that an upgrade would send, empty where nothing is pending."""
    with reading(migrations.url) as connection:
        current = {line: migrations.current(connection, line) for line in migrations.timelines.chosen(timeline)}
        pending = {line: ahead for line in current if (ahead := migrations.ahead(connection, line))}
    if not pending:
        return ""
    with redirect_stdout(sys.stderr):  # what a revision prints is no statement
        if migrations.url.get_backend_name() == "sqlite":
            return "".join(_on_a_copy(migrations, pending))
        return "".join(_offline(migrations, line, current[line]) for line in pending)


def _offline(migrations: Migrations, line: Timeline, current: tuple[str, ...]) -> str:
    """The SQL that Alembic prints instead of running it."""
    config = migrations.config(line)
    config.output_buffer = io.StringIO()
    scripts = ScriptDirectory.from_config(config)

    def steps(revisions: Any, _context: Any) -> Any:
        return scripts._upgrade_revs("head", revisions)

    try:
        with EnvironmentContext(config, scripts, fn=steps, as_sql=True, starting_rev=current or None):
            scripts.run_env()
    except Exception as exc:  # a revision may raise anything where it finds no rows
        reason = f"{type(exc).__name__}: {exc}"
        raise MigrationError(f"timeline {line.name}: a pending revision needs the database to run: {reason}") from exc
    return f"-- timeline {line.name}\n{config.output_buffer.getvalue()}"


def _on_a_copy(migrations: Migrations, pending: Mapping[Timeline, Sequence[RevisionInfo]]) -> Iterator[str]:
    """The SQL that SQLite runs. To rebuild a table Alembic must see it, so the upgrade runs on a copy, then deleted."""
    with TemporaryDirectory() as folder:
        copy = _copy(migrations.url, Path(folder) / "preview.db")
        with connected(copy) as connection:
            for line, revisions in pending.items():
                sql = _recorded(migrations, line, revisions, connection)
                yield f"-- timeline {line.name}\nBEGIN;\n\n{sql}COMMIT;\n\n"


def _copy(url: URL, path: Path) -> URL:
    source = Path(url.database or "")
    if source.is_file():
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(path)) as new:
            old.backup(new)
    return url.set(database=str(path))


def _recorded(migrations: Migrations, line: Timeline, pending: Sequence[RevisionInfo], connection: Connection) -> str:
    statements: list[str] = []
    text: list[str] = []

    def note_revision(*, step: Any, **_: Any) -> None:
        source, destination = (", ".join(ids) for ids in (step.source_revision_ids, step.destination_revision_ids))
        text.append(f"-- Running upgrade {source} -> {destination}\n\n")
        text.extend(f"{statement.strip()};\n\n" for statement in statements)
        statements.clear()

    def note(statement: str) -> None:
        if statement.lstrip().upper().startswith(_WRITES):
            statements.append(statement)

    driver: Any = connection.connection.driver_connection
    driver.set_trace_callback(note)
    with failures(line, [info.revision for info in pending]) as applied:
        config = migrations.config(line, connection=connection, on_version_apply=note_revision, applied=applied)
        command.upgrade(config, "head")
    driver.set_trace_callback(None)
    text.extend(f"{statement.strip()};\n\n" for statement in statements)
    return "".join(text)
