"""`kit migrate`."""

import typer

from app.cli.console import load_settings
from app.cli.prepare import migrate_database


def migrate() -> None:
    """Bring the database up to date."""
    settings = load_settings()
    migrate_database(settings)
    typer.echo(f"{settings.database_url.render_as_string(hide_password=True)} is up to date.")
