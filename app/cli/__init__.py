"""The `kit` command. Each command imports what it needs when it runs, so that `kit --help` answers at once."""

import typer

from app.cli import demo, migrate, openapi, ready, run, worker
from app.cli.jobs import jobs
from app.cli.mail import mail
from app.cli.task import task

app = typer.Typer(
    name="kit",
    help="Run and look after this service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    run.run,
    worker.worker,
    worker.scheduler,
    migrate.migrate,
    ready.ready,
    demo.demo,
    openapi.openapi,
):
    app.command()(command)
app.add_typer(jobs, name="jobs")
app.add_typer(task, name="task")
app.add_typer(mail, name="mail")


def main() -> None:
    """Where the `kit` script starts."""
    app()
