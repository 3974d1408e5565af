"""The `kit` command. Each command imports what it needs when it runs, so that `kit --help` answers at once."""

import typer

from app.cli import demo, doctor, migrate, model, module, openapi, ready, routes, run, secrets
from app.cli.module_commands import add_module_groups

app = typer.Typer(
    name="kit",
    help="Run and look after this service.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (run.run, ready.ready, demo.demo, openapi.openapi, routes.routes, secrets.secrets, doctor.doctor):
    app.command()(command)
app.add_typer(migrate.app, name="migrate")
app.add_typer(module.app, name="module")
app.add_typer(model.app, name="model")
add_module_groups(app)


def main() -> None:
    """Where the `kit` script starts."""
    app()
