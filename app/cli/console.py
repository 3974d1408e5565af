"""Output of commands: coloured in a terminal, plain in a pipe, and one line instead of a traceback."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from pydantic import ValidationError

    from app.core.configs import AppConfig
    from app.core.runtime import Runtime

T = TypeVar("T")

_log_level: str | None = None


def fail(message: str) -> NoReturn:
    """Print `message` in red and end the program with exit code 1."""
    typer.secho(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(1)


def say(message: str, **style: Any) -> None:
    """Print what was done to the standard output, unless `kit --quiet` was given."""
    if not is_quiet():
        typer.secho(message, **style)


def set_log_level(level: Literal["DEBUG", "ERROR"]) -> None:
    """Log from `level` up, in the processes that this one starts too; at ERROR `say` is silent."""
    global _log_level  # noqa: PLW0603  an option of the whole program
    os.environ["LOG_LEVEL"] = _log_level = level


def is_quiet() -> bool:
    """True if `kit --quiet` was given."""
    return _log_level == "ERROR"


def load_settings() -> "AppConfig":
    """Return the settings of this process; ends the program with every fault named where they cannot be used."""
    with settings_errors():
        from app.core.configs import BaseConfig, check_settings, get_settings
        from app.core.modules import parts

        list(parts("config"))
        check_settings()
        for config in BaseConfig.known:
            config()
        settings = get_settings()
    if _log_level:
        from app.core.services.log import configure_logging

        configure_logging(settings, sys.stderr.buffer)
    return settings


def load_registries() -> None:
    """Import all tasks, listeners and providers; ConfigError where one cannot be used."""
    from app.core import listeners, tasks  # noqa: F401
    from app.core.configs import get_settings
    from app.core.services.providers import check_providers

    check_providers(get_settings())


def with_runtime(work: "Callable[[Runtime], Awaitable[T]]") -> T:
    """Run `work` with everything open and return its result; its log goes to the standard error."""
    settings = load_settings()
    load_registries()
    from app.core.db.engines import statements_may_take
    from app.core.runtime import open_runtime
    from app.core.services.log import configure_logging

    async def run() -> T:
        configure_logging(settings, sys.stderr.buffer)
        async with open_runtime(settings, run_jobs=False) as opened:
            with statements_may_take(None):  # who called it may end it
                return await work(opened)

    return asyncio.run(run())


def show_json(value: Any) -> None:
    """Print JSON for programs."""
    typer.echo(json.dumps(value, indent=2, default=_plain))


def show_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for people; in a pipe a row is a line, however long."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from app.core.services.log.redaction import clean_text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(clean_text("" if cell is None else str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


@contextmanager
def settings_errors() -> Iterator[None]:
    """End the program with every fault named where the block meets settings or manifests that cannot be used."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as exc:
        fail(f"The settings cannot be used: {'; '.join(faults_of(exc))}")


@contextmanager
def input_errors() -> Iterator[None]:
    """End the program with one line where the block refuses what was asked for, as the API would."""
    from pydantic import ValidationError

    from app.core.exceptions import AppError

    try:
        yield
    except AppError as exc:
        fail(exc.detail)
    except ValidationError as exc:
        fail("; ".join(faults_of(exc)))


class KitGroup(TyperGroup):
    """A group whose commands end with one line, not a traceback, for an error of settings or storage."""

    def invoke(self, ctx: Any) -> Any:
        with explained_errors():
            return super().invoke(ctx)


@contextmanager
def explained_errors() -> Iterator[None]:
    """End the program with one line where the block meets an error of settings or storage."""
    try:
        yield
    except (typer.Exit, typer.Abort):  # how commands end; explaining them would import, and log, for nothing
        raise
    except Exception as exc:
        if (message := _explained(exc)) is None:
            raise
        fail(message)


def _explained(error: Exception) -> str | None:
    """Return one line for an error of settings, database or folder for data; None for any other."""
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.exceptions import ConfigError

    if isinstance(error, ConfigError | CommandError):
        return str(error)
    if isinstance(error, SQLAlchemyError | OSError):
        return _explained_storage(error)
    return None


def _explained_storage(error: Exception) -> str | None:
    from app.core.configs import get_settings
    from app.core.db.integrity import lacks_tables

    settings = get_settings()
    folder, url = settings.var_dir, settings.database_url
    if isinstance(error, OSError):
        if error.filename and _is_kept_in(folder, error.filename):
            return f"The folder for data {folder} cannot be used: {error.strerror}. Check VAR_DIR."
        if not (error.filename and url.database and _is_kept_in(Path(url.database), error.filename)):
            return None
    cause = getattr(error, "orig", None) or error
    reason = next(iter(str(cause).splitlines()), type(cause).__name__).rstrip(".")
    place = "VAR_DIR" if _is_kept_in(folder, url.database) else "DATABASE_URL"
    advice = "Run `kit migrate`" if lacks_tables(cause) else f"Check {place}"
    return f"The database {url.render_as_string(hide_password=True)} cannot be used: {reason}. {advice}."


def _is_kept_in(folder: Path, file: str | None) -> bool:
    """True if the file is below the folder, or is one above that the folder needs."""
    path = Path(str(file))
    return path.is_relative_to(folder) or (path.is_absolute() and folder.is_relative_to(path))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def faults_of(error: "ValidationError") -> list[str]:
    """Return one line for each fault, without the values that were given."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        ": ".join(filter(None, [".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")]))
        for fault in faults
    ]
