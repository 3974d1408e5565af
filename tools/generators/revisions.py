"""The revisions of what is generated: written on a scratch database, taken back while nobody ran them."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from tools.generators.errors import GeneratorError
from tools.generators.project import is_in_git, kit

if TYPE_CHECKING:
    from app.core.migrations.migrate import Migrations


def check_timeline(name: str) -> None:
    """GeneratorError where models and revisions disagree already: the next revision would hold more than its own."""
    try:
        kit("migrate", "check", "--scratch", "--timeline", name, "--json")
    except GeneratorError as exc:
        raise GeneratorError(
            "models and migrations must agree before another model is added: see kit migrate check --scratch"
        ) from exc


def write_revision(message: str, timeline: str) -> list[Path]:
    """Write what the models have and the revisions have not. Imports the models of this moment."""
    from app.cli.prepare import quiet_alembic
    from tools.migrations.developer import scratch_database

    quiet_alembic()
    with redirect_stdout(StringIO()), scratch_database() as migrations:  # Alembic announces its hooks
        migrations.upgrade()
        return migrations.revision(message, timeline)


def removable_revisions(name: str) -> tuple[list[Path], list[Path]]:
    """Of the shared timeline, what only made the module's tables: those that can go, and those that stay.

    One can go while it is the last, was not run on the configured database and is not in git.
    """
    from app.core.migrations.migrate import Migrations
    from app.core.migrations.timelines import SHARED
    from tools.migrations.reader import read

    migrations = Migrations()
    line = migrations.timelines[SHARED]
    scripts = migrations.scripts(line)
    applied = _applied(migrations)
    is_last = len(scripts.get_heads()) == 1
    going: list[Path] = []
    staying: list[Path] = []
    for script in scripts.walk_revisions():
        path = Path(script.path)
        touched = {table for one in read(script).operations for table in one.tables}
        if not touched or {migrations.timelines.prefix(table) for table in touched} != {name}:
            is_last = False
            continue
        is_last = is_last and applied is not None and script.revision not in applied and not is_in_git(path)
        (going if is_last else staying).append(path)
    return going, staying


def _applied(migrations: "Migrations") -> set[str] | None:
    """What the configured database has run, or None where it cannot be asked."""
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.migrations.timelines import SHARED, MigrationError

    try:
        return {info.revision for info in migrations.history(SHARED) if info.applied}
    except (MigrationError, CommandError, SQLAlchemyError):
        return None
