"""The `kit` command. Each command imports what it needs when it runs, so that `kit --help` answers at once."""

import typer

from app.cli import demo, doctor, migrate, model, module, openapi, ready, routes, run

app = typer.Typer(
    name="kit",
    help="Run and look after this service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run.run, ready.ready, demo.demo, openapi.openapi, routes.routes, doctor.doctor):
    app.command()(command)
app.add_typer(migrate.app, name="migrate")
app.add_typer(module.app, name="module")
app.add_typer(model.app, name="model")


def main() -> None:
    """Where the `kit` script starts."""
    app()
