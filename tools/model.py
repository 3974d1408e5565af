"""`kit model`."""

from typing import Annotated

import typer

from tools.generators.commands import DryRun, Force, generating, say_next, show

app = typer.Typer(help="Make models, with every layer above them.", no_args_is_help=True)


@app.callback()
def model() -> None:
    """Make models, with every layer above them."""


@app.command()
def new(
    module: Annotated[str, typer.Argument(help="The module it belongs to.")],
    name: Annotated[str, typer.Argument(help="As in PurchaseOrder.")],
    fields: Annotated[
        list[str], typer.Argument(help="name:type, then :unique, :index, :nullable; as in number:str:unique")
    ],
    *,
    plural: Annotated[str | None, typer.Option(help="Where it is not the usual one: --plural people.")] = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make a model: table, repository, schemas, service, routes, revision, factory and tests.

    The types are str, text, int, float, decimal, bool, date, datetime, uuid, json and email; "str(80)" and
    "decimal(10,4)" give a size.
    """
    with generating():
        from tools.generators.models import make_model, plan_model

        plan = plan_model(module, name, fields, plural=plural, force=force)
        revisions = [] if dry_run else make_model(plan)
        show(plan.changes, dry_run=dry_run)
        for path in revisions:
            typer.secho(f"make    {plan.changes.shown(path)}", fg=typer.colors.GREEN)
        if not dry_run:
            say_next("kit migrate", "make check", "make test")
