"""What commands say: coloured in a terminal, plain in a pipe, and one line instead of a traceback."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from pydantic import ValidationError

    from app.core.configs import AppConfig


def fail(message: str) -> NoReturn:
    """End the program: say why in red, exit code 1."""
    typer.secho(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(1)


def load_settings() -> "AppConfig":
    """The settings of this process; ends the program with every fault named where they cannot be used."""
    with settings_errors():
        from app.core.configs import BaseConfig, check_settings, get_settings
        from app.core.modules import parts

        list(parts("config"))
        check_settings()
        for config in BaseConfig.known:
            config()
        return get_settings()


@contextmanager
def settings_errors() -> Iterator[None]:
    """End the program with every fault named where the block meets settings or manifests that cannot be used."""
    from pydantic import ValidationError

    from app.core.exceptions import ConfigError

    try:
        yield
    except ConfigError as exc:
        fail(str(exc))
    except ValidationError as exc:
        fail(f"The settings cannot be used: {'; '.join(_faults(exc))}")


def show_json(value: Any) -> None:
    """JSON for programs."""
    typer.echo(json.dumps(value, indent=2, default=str))


@contextmanager
def database_errors(settings: "AppConfig") -> Iterator[None]:
    """End the program with one line where the block cannot use the database or the folder for data."""
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    from app.core.exceptions import ConfigError

    try:
        yield
    except (SQLAlchemyError, CommandError, ConfigError, OSError) as exc:
        cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig else exc
        reason = next(iter(str(cause).splitlines()), type(cause).__name__).rstrip(".")
        url = settings.database_url.render_as_string(hide_password=True)
        fail(f"The database {url} cannot be used: {reason}. Check DATABASE_URL.")


def _faults(error: "ValidationError") -> list[str]:
    """What is wrong, without the values that were given."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        ": ".join(filter(None, [".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")]))
        for fault in faults
    ]
