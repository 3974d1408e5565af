"""Commands of `kit` that live in tools/, which only developers have: each is imported when it is asked for."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from app.cli.console import KitGroup, fail

TOOLS = Path(__file__).parents[2] / "tools"

# By the command above them: a function or a Typer group, as `module:name`.
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


def developer_group(path: str) -> type[TyperGroup]:
    """A class for the group `path` (as in "kit migrate") that has the commands of tools/ beside its own."""
    commands = COMMANDS[path]

    class DeveloperGroup(KitGroup):
        def __init__(self, **settings: Any) -> None:
            if not TOOLS.is_dir():
                settings["epilog"] = f"Only in a checkout, not in this image: {', '.join(commands)}."
            super().__init__(**settings)

        def list_commands(self, ctx: Any) -> list[str]:
            return [*super().list_commands(ctx), *(commands if TOOLS.is_dir() else ())]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in commands:
                return super().get_command(ctx, cmd_name)
            if not TOOLS.is_dir():
                fail(
                    f"`{path} {cmd_name}` is a command for developers: it needs the folder tools/, which is not "
                    "part of this image. Run it in a checkout of the project."
                )
            return _command(cmd_name, commands[cmd_name])

    return DeveloperGroup


def developer_object(place: str, otherwise: Any) -> Any:
    """The object of tools/ at `module:name`, or `otherwise` where there is no such folder."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute) if TOOLS.is_dir() else otherwise


def _command(name: str, place: str) -> Any:
    found = developer_object(place, None)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    single = typer.Typer(add_completion=False)
    single.command(name)(found)
    return get_command(single)
