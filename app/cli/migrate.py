"""`kit migrate`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import database_errors, fail, load_settings, say, show_json, show_table
from app.cli.prepare import migrate_database, quiet_alembic

if TYPE_CHECKING:
    from app.core.migrations.check import Fault
    from app.core.migrations.migrate import Migrations
    from app.core.migrations.timelines import RevisionInfo

app = typer.Typer(help="Bring the database up to date; below it, everything else about migrations.")

OneTimeline = Annotated[str | None, typer.Option("--timeline", "-t", help="One timeline instead of all.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Message = Annotated[str, typer.Option("--message", "-m", help="What it is for; part of the file's name.")]


@app.callback(invoke_without_command=True)
def migrate(context: typer.Context) -> None:
    """Bring the database up to date; below it, everything else about migrations."""
    if context.invoked_subcommand is None:
        settings = load_settings()
        migrate_database(settings)
        say(f"{settings.database_url.render_as_string(hide_password=True)} is up to date.")


@app.command()
def upgrade(revision: Annotated[str, typer.Argument()] = "head", timeline: OneTimeline = None) -> None:
    """Run what is pending: core and modules first, packages last."""
    with _migrations() as migrations:
        ran = migrations.upgrade(revision, timeline)
    for info in ran:
        typer.echo(_line(info))
    say("Done." if ran else "Nothing was pending.")


@app.command(context_settings={"ignore_unknown_options": True})  # `-1` is no option
def downgrade(
    revision: Annotated[str, typer.Argument(help="-1 is one step, base is all.")] = "-1",
    timeline: OneTimeline = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Undo revisions of one timeline, or all of every timeline."""
    with _migrations() as migrations:
        undone = migrations.behind(revision, timeline)
        if not undone:
            say("There is nothing to undo.")
            return
        for info, losses in undone:
            typer.echo(_line(info))
            for loss in losses:
                typer.secho(f"    {loss}", fg=typer.colors.YELLOW)
        if not (yes or typer.confirm("Undo these, with what is in their tables and columns?")):
            fail("Nothing was undone.")
        migrations.downgrade(revision, timeline)
    say("Undone.")


@app.command()
def revision(
    message: Message,
    timeline: OneTimeline = None,
    empty: Annotated[bool, typer.Option("--empty", help="A revision to fill by hand.")] = False,
) -> None:
    """Write what models have and tables have not as a revision."""
    with _migrations() as migrations, redirect_stdout(sys.stderr):  # Alembic announces its hooks
        written = migrations.revision(message, timeline, empty=empty)
        faults = migrations.faults_of(written)
    for path in written:
        typer.secho(str(path), fg=typer.colors.GREEN)
    for fault in faults:
        typer.secho(str(fault), fg=typer.colors.YELLOW, err=True)
    if not written:
        say("Models and tables agree: nothing is written.")


@app.command()
def merge(message: Message = "merge", timeline: OneTimeline = None) -> None:
    """Join the heads of a timeline that two branches have continued."""
    with _migrations() as migrations, redirect_stdout(sys.stderr):
        written = migrations.merge(message, timeline)
    for path in written:
        typer.secho(str(path), fg=typer.colors.GREEN)
    if not written:
        say("No timeline has several heads.")


@app.command()
def preview(timeline: OneTimeline = None) -> None:
    """Print the SQL that an upgrade would run, and nothing where nothing is pending."""
    with _migrations() as migrations:
        from app.core.migrations.preview import preview as pending_sql

        typer.echo(pending_sql(migrations, timeline), nl=False)


@app.command()
def status(timeline: OneTimeline = None, as_json: AsJson = False) -> None:
    """Say where the database is, what is pending, and which tables nobody owns."""
    with _migrations() as migrations:
        states, orphans = migrations.status(timeline), migrations.orphans()
    if as_json:
        show_json({"timelines": [asdict(state) for state in states], "orphans": orphans})
        return
    rows = [
        (state.name, state.kind, ", ".join(state.current) or "-", ", ".join(i.revision for i in state.pending) or "-")
        for state in states
    ]
    show_table(("TIMELINE", "KIND", "DATABASE AT", "PENDING"), rows)
    if orphans:
        typer.secho(f"\nTables of no installed module: {', '.join(orphans)}", fg=typer.colors.YELLOW)
        typer.echo("They are left alone. Drop them by hand when nobody needs their rows.")


@app.command()
def history(timeline: OneTimeline = None, as_json: AsJson = False) -> None:
    """List every revision, oldest first."""
    with _migrations() as migrations:
        infos = migrations.history(timeline)
    if as_json:
        show_json([asdict(info) for info in infos])
        return
    rows = [(info.timeline, info.revision, "yes" if info.applied else "no", info.message) for info in infos]
    show_table(("TIMELINE", "REVISION", "APPLIED", "MESSAGE"), rows)


@app.command()
def check(
    timeline: OneTimeline = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Try all revisions with rows on new databases: see TEST_DATABASE_URL.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find several heads, others' tables, unexplained loss of data, and what models and tables disagree on."""
    server = os.environ.get("TEST_DATABASE_URL") if scratch else None
    if scratch:
        os.environ["ENVIRONMENT"] = "testing"  # the check of the code must not depend on a developer's .env
    with _migrations() as migrations:
        found = _tried(server, timeline) if scratch else migrations.check(timeline)
    faults = [fault for fault in found if fault.blocking]
    notes = [fault for fault in found if not fault.blocking]
    if as_json:
        show_json({"faults": [asdict(fault) for fault in faults], "notes": [asdict(note) for note in notes]})
    else:
        for note in notes:
            typer.secho(str(note), fg=typer.colors.YELLOW, err=True)
        for fault in faults:
            typer.secho(str(fault), fg=typer.colors.RED, err=True)
        if not faults:
            say(f"The migrations are sound{_where(server) if scratch else ''}.")
    if faults:
        raise typer.Exit(1)


def _tried(server: str | None, timeline: str | None) -> list["Fault"]:
    from sqlalchemy.engine import make_url

    from app.core.migrations.trial import check_scratch

    url = make_url(server) if server else None
    return check_scratch(url and url.set(drivername="postgresql+psycopg"), timeline)


def _where(server: str | None) -> str:
    if server:
        return " on SQLite and PostgreSQL, with rows, up and down"
    return " on SQLite, with rows, up and down; TEST_DATABASE_URL adds PostgreSQL"


@contextmanager
def _migrations() -> Iterator["Migrations"]:
    """The application's migrations; ends the program with one line for what they refuse."""
    settings = load_settings()
    quiet_alembic()
    from alembic.util import CommandError

    from app.core.exceptions import ConfigError
    from app.core.migrations.migrate import Migrations

    with database_errors(settings):
        try:
            yield Migrations(settings.database_url)
        except (ConfigError, CommandError) as exc:
            fail(str(exc))


def _line(info: "RevisionInfo") -> str:
    return f"{info.timeline}  {info.revision}  {info.message}"
