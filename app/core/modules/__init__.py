"""The installed modules in load order, and their parts.

A module is a package directly below `app/` with a `module.toml`, or a pip-installed package (an external
module). `MODULES` lists what is installed; its default `app.*` discovers. What a module contributes follows
from file names: `models`, `routers` (`router_v1`), `tasks`, `listeners`, `config`, `lifespan`, `health`, `permissions`,
`authenticators`, `metrics`.
"""

from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

from app.core.configs import app_config
from app.core.exceptions import ConfigError
from app.core.identity import Authenticator, Permission
from app.core.modules.discovery import discover, present_modules, table_owner
from app.core.modules.manifest import BoundaryException, Manifest
from app.core.modules.module import Module

__all__ = [
    "BoundaryException",
    "Manifest",
    "Module",
    "declared_permissions",
    "discover",
    "installed_modules",
    "offered_authenticators",
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


def _offered(name: str, kind: type[Any]) -> list[Any]:
    """Return what the modules list in their file `name` under the same name, as `permissions = [...]`."""
    found: list[Any] = []
    for part in parts(name):
        items = getattr(part, name, None)
        if not items or not isinstance(items, list | tuple) or not all(isinstance(item, kind) for item in items):
            raise ConfigError(f"{part.__name__} defines no {name}: {name} = [{kind.__name__}(...)]")
        found += items
    return found


def offered_authenticators() -> list[Authenticator]:
    """Return the authenticators of the modules, those that depend on others first: the last refuses unknown tokens."""
    return _offered("authenticators", Authenticator)[::-1]


def declared_permissions() -> dict[str, Permission]:
    """Return the permissions that the modules declare, by name."""
    found: dict[str, Permission] = {}
    for permission in _offered("permissions", Permission):
        if permission.name in found:
            raise ConfigError(f"two modules declare the permission {permission.name}")
        found[permission.name] = permission
    return found
