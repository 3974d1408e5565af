"""Which modules are installed, in which order they load, and what each contributes.

A module is a package under `app/` with a `module.toml`. `MODULES` lists what is installed;
its default `app.*` discovers. What a module contributes follows from file names: `models`,
`routers` (`router_v1`), `tasks`, `listeners`, `config`.
"""

import importlib
import importlib.util
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

from app.core.configs import PROJECT_ROOT, app_config
from app.core.exceptions import ConfigError


@dataclass(frozen=True)
class Module:
    """One installed module: its import name and the modules it may use."""

    name: str
    path: Path
    depends_on: tuple[str, ...] = ()

    def part(self, name: str) -> ModuleType | None:
        """The module's submodule `name`, imported, or None where it has none."""
        target = f"{self.name}.{name}"
        return importlib.import_module(target) if importlib.util.find_spec(target) else None


def discover(patterns: list[str], root: Path = PROJECT_ROOT) -> list[Module]:
    """The modules below `root` that `patterns` name, dependencies first.

    A circle, a missing dependency or a manifest that cannot be read is a ConfigError.
    """
    found: dict[str, Module] = {}
    for pattern in patterns:
        paths = (root / pattern.removesuffix(".*").replace(".", "/")).glob(
            "*/module.toml" if pattern.endswith(".*") else "module.toml"
        )
        manifests = sorted(paths)
        if not manifests and not pattern.endswith(".*"):
            raise ConfigError(f"MODULES: {pattern} has no module.toml")
        for manifest in manifests:
            name = ".".join(manifest.parent.relative_to(root).parts)
            found[name] = _read(name, manifest)
    for module in found.values():
        if missing := [other for other in module.depends_on if other not in found]:
            raise ConfigError(f"{module.path / 'module.toml'}: depends_on names {', '.join(missing)}: not installed")
    try:
        order = TopologicalSorter({name: module.depends_on for name, module in found.items()}).static_order()
        return [found[name] for name in order]
    except CycleError as exc:
        raise ConfigError(f"modules depend on each other in a circle: {' > '.join(exc.args[1])}") from exc


def _read(name: str, manifest: Path) -> Module:
    try:
        content = tomllib.loads(manifest.read_text())
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{manifest}: not valid TOML: {exc}") from exc
    depends_on = content.get("depends_on", [])
    if not isinstance(depends_on, list) or not all(isinstance(item, str) for item in depends_on):
        raise ConfigError(f"{manifest}: depends_on must be a list of module names, for example ['app.auth']")
    return Module(name, manifest.parent, tuple(depends_on))


@lru_cache
def installed_modules() -> tuple[Module, ...]:
    """The modules of this process, in load order."""
    return tuple(discover(app_config.MODULES))


def parts(name: str) -> Iterator[ModuleType]:
    """Import and yield the submodule `name` of every module that has one, in load order."""
    for module in installed_modules():
        if part := module.part(name):
            yield part
