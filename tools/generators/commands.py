"""`kit module new` and `remove`, and `kit model new`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.console import fail, say, settings_errors

if TYPE_CHECKING:
    from tools.generators.changes import Changes

Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]

model = typer.Typer(help="Generate models, with every layer above them.", no_args_is_help=True)


def new(
    name: Annotated[str, typer.Argument(help="As in purchase_orders.")],
    migrations: Annotated[
        Literal["shared", "own"], typer.Option(help="`own` gives it a timeline of its own.")
    ] = "shared",
    external: Annotated[bool, typer.Option("--external", help="A package to install, in packages/.")] = False,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Generate a module: its manifest, its root, a router and a test."""
    with generating():
        from tools.generators.modules import add_to_map, plan_module, plan_package
        from tools.generators.project import carry_out, write_documents

        changes = plan_package(name, force=force) if external else plan_module(name, migrations, force=force)
        is_there = any(path.exists() for path in changes.made)
        if not dry_run:
            carry_out(changes, lambda: [] if external or (not is_there and add_to_map(name)) else write_documents())
        show(changes, dry_run=dry_run)
        if external:
            say_next(f"pip install -e packages/{name}", f"MODULES='app.*,{name}' kit migrate", unless=dry_run)
        else:
            say_next(f"kit model new {name} NAME field:type ...", "make test", unless=dry_run)


def remove(
    name: Annotated[str, typer.Argument(help="The folder below app/.")],
    force: Annotated[bool, typer.Option("--force", help="Also files that git could not bring back.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Delete a module with its tests, its factories and the revisions that no database has run."""
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
        notes = [f"{place} still names it" for place in removal.mentions]
        notes += [f"{path} stays: databases may have run it" for path in removal.kept_revisions]
        for note in notes:
            typer.secho(note, fg=typer.colors.YELLOW)
        if removal.external:
            say_next(f"pip uninstall {name}", f"take {name} out of MODULES")
        if removal.kept_revisions or removal.own_timeline:
            typer.echo(f"Tables {name}_* that exist are left alone; kit migrate status names them.")


@model.command("new")
def new_model(
    module: Annotated[str, typer.Argument(help="The module it belongs to.")],
    name: Annotated[str, typer.Argument(help="As in PurchaseOrder.")],
    fields: Annotated[
        list[str], typer.Argument(help="name:type, then :unique, :index, :nullable; as in number:str:unique")
    ],
    *,
    plural: Annotated[str | None, typer.Option(help="Where it is irregular: --plural people.")] = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Generate a model: table, repository, schemas, service, routes, revision, factory and tests.

    The types are str, text, int, id, float, decimal, bool, date, datetime, uuid, json and email; "str(80)" and
    "decimal(10,4)" give a size.
    """
    with generating():
        from tools.generators.models import make_model, plan_model

        plan = plan_model(module, name, fields, plural=plural, force=force)
        revisions = [] if dry_run else make_model(plan)
        show(plan.changes, dry_run=dry_run)
        for path in revisions:
            typer.secho(f"make    {plan.changes.shown(path)}", fg=typer.colors.GREEN)
        say_next("kit migrate", "make check", "make test", unless=dry_run)


@contextmanager
def generating() -> Iterator[None]:
    """End the program with one line where nothing can be generated."""
    with settings_errors():
        from app.core.configs import get_settings  # of the core alone: modules need not be loaded

        get_settings()
    from app.core.exceptions import ConfigError
    from tools.generators.changes import GeneratorError

    try:
        yield
    except (GeneratorError, ConfigError) as exc:
        fail(str(exc))
    except OSError as exc:
        fail(f"{exc.filename}: {exc.strerror}. Nothing was changed")


def show(changes: "Changes", *, dry_run: bool) -> None:
    """Print one line for each file."""
    for line in changes.tree():
        typer.secho(line, fg=typer.colors.YELLOW if dry_run else typer.colors.GREEN)
    if dry_run:
        typer.echo("Nothing was done.")


def say_next(*commands: str, unless: bool = False) -> None:
    """Print what to type now."""
    if not unless:
        say("\n    ".join(("Next:", *commands)))
