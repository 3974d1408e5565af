"""Commands that modules bring: `cli/users.py` of a module is the group `kit users`.

The name and help of a group are read from the file's name and docstring, so that `kit --help` imports no module.
Its commands may be coroutines: they run with everything open, and an error they raise is printed as one line.
"""

import ast
import inspect
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from app.cli.console import fail, input_errors, load_settings, with_runtime
from app.cli.developer import COMMANDS

_APP = Path(__file__).resolve().parents[1]


def add_module_groups(app: typer.Typer) -> None:
    """Add a group for each file; a name that `app` already has stays what it is."""
    taken = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    taken |= {str(group.name) for group in app.registered_groups} | set(COMMANDS["kit"])
    for manifest in sorted(_APP.glob("*/module.toml")):
        for path in sorted((manifest.parent / "cli").glob("[!_]*.py")):
            name = path.stem.replace("_", "-")
            if name not in taken:
                taken.add(name)
                app.add_typer(_lazy(path), name=name)


def _lazy(path: Path) -> typer.Typer:
    """A group that is imported when one of its commands is asked for."""

    class ModuleGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            self._load()
            return super().list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            self._load()
            return super().get_command(ctx, cmd_name)

        def _load(self) -> None:
            self.commands = self.commands or _commands(path)

    return typer.Typer(cls=ModuleGroup, help=_summary(path), no_args_is_help=True)


def _summary(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _commands(path: Path) -> dict[str, Any]:
    load_settings()
    from app.core.modules import installed_modules

    module = f"{_APP.name}.{path.parent.parent.name}"
    if module not in [installed.name for installed in installed_modules()]:
        fail(f"{module} is not installed: MODULES leaves it out.")
    group: typer.Typer = import_module(f"{module}.cli.{path.stem}").app
    for command in group.registered_commands:
        if command.callback:
            command.callback = _running(command.callback)
    return dict(get_group(group).commands)


def _running(command: Callable[..., Any]) -> Callable[..., None]:
    @wraps(command)
    def run(**values: Any) -> None:
        with input_errors():
            if inspect.iscoroutinefunction(command):
                with_runtime(lambda _: command(**values))
            else:
                command(**values)

    return run
