"""The installed modules in load order, and their parts.

A module is a package directly below `app/` with a `module.toml`, or a pip-installed package (an external
module). `MODULES` lists what is installed; its default `app.*` discovers. What a module contributes follows
from file names: `models`, `routers` (`router_v1`), `tasks`, `listeners`, `config`, `lifespan`.
"""

from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType

from app.core.configs import app_config
from app.core.modules.discovery import discover, present_modules, table_owner
from app.core.modules.manifest import BoundaryException, Manifest
from app.core.modules.module import Module

__all__ = [
    "BoundaryException",
    "Manifest",
    "Module",
    "discover",
    "installed_modules",
    "parts",
    "present_modules",
    "table_owner",
]


@lru_cache
def installed_modules() -> tuple[Module, ...]:
    """Return the modules of this process, external ones too, in load order."""
    return tuple(discover(app_config.MODULES))


def parts(name: str) -> Iterator[ModuleType]:
    """Import and yield the submodule `name` of every internal module that has one, in load order."""
    for module in installed_modules():
        if not module.external and (part := module.part(name)):
            yield part
