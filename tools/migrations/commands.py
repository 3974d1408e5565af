"""`kit migrate revision`, `merge` and `check`."""

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer

from app.cli.console import say, show_json
from app.cli.migrate import AsJson, OneTimeline, opened_migrations

if TYPE_CHECKING:
    from app.core.migrations.refusals import Fault
    from tools.migrations.developer import DeveloperMigrations

Message = Annotated[str, typer.Option("--message", "-m", help="What it is for; part of the file's name.")]


def revision(
    message: Message,
    timeline: OneTimeline = None,
    empty: Annotated[bool, typer.Option("--empty", help="A revision to fill by hand.")] = False,
) -> None:
    """Write what models have and tables have not as a revision."""
    migrations = _migrations()
    with redirect_stdout(sys.stderr):  # Alembic announces its hooks
        written = migrations.revision(message, timeline, empty=empty)
        faults = migrations.faults_of(written)
    for path in written:
        typer.secho(str(path), fg=typer.colors.GREEN)
    for fault in faults:
        typer.secho(str(fault), fg=typer.colors.YELLOW, err=True)
    if not written:
        say("Models and tables agree: nothing is written.")


def merge(message: Message = "merge", timeline: OneTimeline = None) -> None:
    """Join the heads of a timeline that two branches have continued."""
    migrations = _migrations()
    with redirect_stdout(sys.stderr):
        written = migrations.merge(message, timeline)
    for path in written:
        typer.secho(str(path), fg=typer.colors.GREEN)
    if not written:
        say("No timeline has several heads.")


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
    migrations = _migrations()
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
            say(f"{verdict(notes)}{_where(server) if scratch else ''}.")
    if faults:
        raise typer.Exit(1)


def verdict(notes: Sequence["Fault"]) -> str:
    """Return what can be said of migrations without a fault: sound, unless a note says that part was not read."""
    is_unread = any(note.kind == "unread" for note in notes)
    return "No fault was found in what could be read" if is_unread else "The migrations are sound"


def _tried(server: str | None, timeline: str | None) -> list["Fault"]:
    from sqlalchemy.engine import make_url

    from tools.migrations.trial import check_scratch

    url = make_url(server) if server else None
    return check_scratch(url and url.set(drivername="postgresql+psycopg"), timeline)


def _where(server: str | None) -> str:
    if server:
        return " on SQLite and PostgreSQL, with rows, up and down"
    return " on SQLite, with rows, up and down; TEST_DATABASE_URL adds PostgreSQL"


def _migrations() -> "DeveloperMigrations":
    return cast("DeveloperMigrations", opened_migrations())
