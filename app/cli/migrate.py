"""`kit migrate`; the commands that write and check revisions are in tools/."""

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import fail, load_settings, say, show_json, show_table
from app.cli.groups import developer_group, developer_object

if TYPE_CHECKING:
    from app.core.configs import AppConfig
    from app.core.migrations.migrate import Migrations
    from app.core.migrations.timelines import RevisionInfo

app = typer.Typer(
    cls=developer_group("kit migrate"),
    help="Bring the database up to date; below it, everything else about migrations.",
)

OneTimeline = Annotated[str | None, typer.Option("--timeline", "-t", help="One timeline instead of all.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.callback(invoke_without_command=True)
def migrate(context: typer.Context) -> None:
    """Bring the database up to date; below it, everything else about migrations."""
    if context.invoked_subcommand is None:
        migrations = opened_migrations()
        migrations.upgrade()
        say(f"{migrations.url.render_as_string(hide_password=True)} is up to date.")


@app.command()
def upgrade(revision: Annotated[str, typer.Argument()] = "head", timeline: OneTimeline = None) -> None:
    """Run what is pending: core and modules first, packages last."""
    migrations = opened_migrations()
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
    migrations = opened_migrations()
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
def preview(timeline: OneTimeline = None) -> None:
    """Print the SQL that an upgrade would run, and nothing where nothing is pending."""
    migrations = opened_migrations()
    from app.core.migrations.preview import preview as pending_sql

    typer.echo(pending_sql(migrations, timeline), nl=False)


@app.command()
def status(timeline: OneTimeline = None, as_json: AsJson = False) -> None:
    """Say where the database is, what is pending, and which tables nobody owns."""
    migrations = opened_migrations()
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
    migrations = opened_migrations()
    infos = migrations.history(timeline)
    if as_json:
        show_json([asdict(info) for info in infos])
        return
    rows = [(info.timeline, info.revision, "yes" if info.applied else "no", info.message) for info in infos]
    show_table(("TIMELINE", "REVISION", "APPLIED", "MESSAGE"), rows)


def opened_migrations() -> "Migrations":
    """Return the migrations of the configured database; in a checkout, revisions are read before they run."""
    return migrations_of(load_settings())


def migrations_of(settings: "AppConfig") -> "Migrations":
    """Return the migrations of the database that `settings` name."""
    quiet_alembic()
    from app.core.migrations.migrate import Migrations

    kind: type[Migrations] = developer_object("tools.migrations.developer:DeveloperMigrations", Migrations)
    return kind(settings.database_url)


def quiet_alembic() -> None:
    """Log only the running revision of what Alembic logs."""
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.getLogger("alembic.runtime.migration").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg.startswith("Running")


def _line(info: "RevisionInfo") -> str:
    return f"{info.timeline}  {info.revision}  {info.message}"
