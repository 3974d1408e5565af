"""`kit secrets`."""

import sys
from secrets import token_urlsafe
from typing import Annotated

import typer

from app.cli.console import settings_errors, show_json


def secrets(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False) -> None:
    """Print a fresh value for every secret that the settings need, as lines for .env; writes nothing."""
    with settings_errors():
        from app.core.configs import BaseConfig
        from app.core.modules import parts

        list(parts("config"))
    names = dict.fromkeys(name for config in BaseConfig.known for name in config.required_secrets)
    values = {name: token_urlsafe(48) for name in names}
    if as_json:
        show_json(values)
        return
    for name, value in values.items():
        typer.echo(f"{name}={value}")
    if sys.stdout.isatty():
        typer.secho("Nothing is stored. To keep such values: kit secrets >> .env", dim=True, err=True)
