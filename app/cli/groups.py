"""Commands of `kit` that are imported when they are called: those of tools/, for developers, and those of modules.

`cli/users.py` of a module is the group `kit users`. Its name and help are read from the file's name and docstring, so
that `kit --help` imports no module. Its commands may be coroutines: they run with everything open, and an error they
raise is printed as one line.
"""

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from app.cli.console import KitGroup, fail, input_errors, load_settings, with_runtime

APP = Path(__file__).resolve().parents[1]
TOOLS = APP.parent / "tools"

# Keyed by the parent command; each value is a function or a Typer group, as `module:name`.
COMMANDS: Mapping[str, Mapping[str, str]] = {
    "kit": {
        "demo": "tools.demo:demo",
        "openapi": "tools.api:openapi",
        "routes": "tools.api:routes",
        "module": "tools.module:app",
        "model": "tools.generators.commands:model",
        "mail": "tools.mail:mail",
    },
    "kit migrate": {
        "revision": "tools.migrations.commands:revision",
        "merge": "tools.migrations.commands:merge",
        "check": "tools.migrations.commands:check",
    },
}


def _lazy(names: Callable[[], Iterable[str]], load: Callable[[str], Any], epilog: str | None = None) -> type[KitGroup]:
    """Make a group class with the commands `names` beside its own; `load` returns one of them, or None."""

    class LazyGroup(KitGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings | ({"epilog": epilog} if epilog else {}))

        def list_commands(self, ctx: Any) -> list[str]:
            return [*super().list_commands(ctx), *names()]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return super().get_command(ctx, cmd_name) or load(cmd_name)

    return LazyGroup


def developer_group(path: str) -> type[TyperGroup]:
    """Return a class for the group `path` (such as "kit migrate") with the commands of tools/ beside its own."""
    commands = COMMANDS[path]

    def load(name: str) -> Any:
        if name not in commands:
            return None
        found = developer_object(commands[name], None)
        if found is None:
            fail(
                f"`{path} {name}` is a command for developers: it needs the folder tools/, which is not "
                "part of this image. Run it in a checkout of the project."
            )
        if isinstance(found, typer.Typer):
            group = get_group(found)
            group.name = name
            return group
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        return get_command(single)

    if TOOLS.is_dir():
        return _lazy(lambda: commands, load)
    return _lazy(tuple, load, f"Only in a checkout, not in this image: {', '.join(commands)}.")


def developer_object(place: str, otherwise: Any) -> Any:
    """Import `module:name` from tools/; return `otherwise` if there is no such folder."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute) if TOOLS.is_dir() else otherwise


def add_module_groups(app: typer.Typer) -> None:
    """Add a group for each file of a module's `cli/`, unless `app` has a command of that name."""
    taken = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    taken |= {str(group.name) for group in app.registered_groups} | set(COMMANDS["kit"])
    for path in sorted(APP.glob("*/cli/[!_]*.py")):
        name = path.stem.replace("_", "-")
        if name not in taken and (path.parents[1] / "module.toml").is_file():
            taken.add(name)
            summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            app.add_typer(typer.Typer(cls=_module_group(path), help=summary, no_args_is_help=True), name=name)


def _module_group(path: Path) -> type[TyperGroup]:
    return _lazy(lambda: _commands(path), lambda name: _commands(path).get(name))


@cache
def _commands(path: Path) -> dict[str, Any]:
    load_settings()
    from app.core.modules import installed_modules

    module = f"{APP.name}.{path.parent.parent.name}"
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
