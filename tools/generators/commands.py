"""`kit module new` and `kit module remove`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.console import fail, load_settings, say

if TYPE_CHECKING:
    from tools.generators.changes import Changes

Force = Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


def new(
    name: Annotated[str, typer.Argument(help="As in purchase_orders.")],
    migrations: Annotated[
        Literal["shared", "own"], typer.Option(help="`own` gives it a timeline of its own.")
    ] = "shared",
    external: Annotated[
        bool, typer.Option("--external", help="A package of its own, in packages/, to be installed.")
    ] = False,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make a module: its manifest, its root, a router and a test."""
    with generating():
        from tools.generators.modules import plan_module
        from tools.generators.packages import plan_package
        from tools.generators.project import carried_out

        planned = plan_package(name, force=force) if external else plan_module(name, migrations, force=force)
        if not dry_run:
            with carried_out(planned, documents=not external):
                pass
        show(planned, dry_run=dry_run)
        if dry_run:
            return
        if external:
            say_next(f"pip install -e packages/{name}", f"MODULES='app.*,{name}' kit migrate")
        else:
            say_next(f"kit model new {name} NAME field:type ...", "make test")


def remove(
    name: Annotated[str, typer.Argument(help="The folder below app/.")],
    force: Annotated[bool, typer.Option("--force", help="Also what nobody could bring back.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Delete a module with its tests, its factories and the revisions nobody ran."""
    with generating():
        from tools.generators.removal import plan_removal, remove_module

        removal = plan_removal(name)
        if removal.dependants:
            fail(f"{', '.join(removal.dependants)} depends on app.{name}: take it out of depends_on there first")
        if removal.unknown and not force:
            fail(f"git does not have {', '.join(removal.unknown)}: commit it, or delete it with --force")
        if not dry_run:
            remove_module(removal)
        show(removal.changes, dry_run=dry_run)
        for place in removal.mentions:
            typer.secho(f"{place} still names it", fg=typer.colors.YELLOW)
        for path in removal.kept_revisions:
            typer.secho(f"{path} stays: databases may have run it", fg=typer.colors.YELLOW)
        if removal.external:
            say_next(f"pip uninstall {name}", f"take {name} out of MODULES")
        if removal.kept_revisions or removal.own_timeline:
            typer.echo(f"Tables {name}_* that exist are left alone; kit migrate status names them.")


@contextmanager
def generating() -> Iterator[None]:
    """End the program with one line where nothing can be generated."""
    load_settings()
    from app.core.exceptions import ConfigError
    from tools.generators.errors import GeneratorError

    try:
        yield
    except (GeneratorError, ConfigError) as exc:
        fail(str(exc))
    except OSError as exc:
        fail(f"{exc.filename}: {exc.strerror}. Nothing was changed")


def show(changes: "Changes", *, dry_run: bool) -> None:
    """One line for each file."""
    for line in changes.tree():
        typer.secho(line, fg=typer.colors.YELLOW if dry_run else typer.colors.GREEN)
    if dry_run:
        typer.echo("Nothing was done.")


def say_next(*commands: str) -> None:
    """What to type now."""
    say("Next:")
    for command in commands:
        say(f"    {command}")
