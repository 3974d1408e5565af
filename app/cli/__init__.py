"""The `kit` command. Each command imports what it needs when it runs, so that `kit --help` answers at once."""

import typer

from app.cli import demo, doctor, migrate, model, module, openapi, ready, routes, run, secrets, worker
from app.cli.jobs import jobs
from app.cli.mail import mail
from app.cli.module_commands import add_module_groups
from app.cli.task import task

app = typer.Typer(
    name="kit",
    help="Run and look after this service.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    run.run,
    worker.worker,
    worker.scheduler,
    ready.ready,
    demo.demo,
    openapi.openapi,
    routes.routes,
    secrets.secrets,
    doctor.doctor,
):
    app.command()(command)
app.add_typer(migrate.app, name="migrate")
app.add_typer(module.app, name="module")
app.add_typer(model.app, name="model")
app.add_typer(jobs, name="jobs")
app.add_typer(task, name="task")
app.add_typer(mail, name="mail")
add_module_groups(app)


def main() -> None:
    """Where the `kit` script starts."""
    app()
