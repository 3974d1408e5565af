"""The `kit` command. Each command imports what it needs when it runs, so that `kit --help` answers at once."""

import sys
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from app.cli import doctor, migrate, run, worker
from app.cli.console import set_log_level
from app.cli.groups import add_module_groups, developer_group
from app.cli.jobs import jobs, task

app = typer.Typer(
    name="kit",
    cls=developer_group("kit"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    run.run,
    worker.worker,
    worker.scheduler,
    run.ready,
    run.secrets,
    doctor.doctor,
):
    app.command()(command)
app.add_typer(migrate.app, name="migrate")
app.add_typer(jobs, name="jobs")
app.add_typer(task, name="task")
add_module_groups(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        typer.echo(f"{project['name']} {project['version']}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log everything: LOG_LEVEL=DEBUG.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Log errors alone, and say nothing but what was asked for.")
    ] = False,
) -> None:
    """Run and look after this service."""
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other")
    if verbose or quiet:
        set_log_level("DEBUG" if verbose else "ERROR")


def main() -> None:
    """Run the `kit` command."""
    try:
        " ".join(sys.argv).encode()
    except UnicodeEncodeError:  # bytes that no database takes and no terminal shows
        sys.exit("The arguments must be UTF-8.")
    app()
