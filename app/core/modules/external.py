"""Modules that are pip-installed packages and import nothing of `app`."""

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from app.core.exceptions import ConfigError
from app.core.modules.manifest import MANIFEST, Manifest, Sentence, check_manifest, read_manifest, read_toml, shown
from app.core.modules.module import Module

FASTAPPKIT_MANIFEST = "fastappkit.toml"
TAKEN = ("app", "core", "shared")


class ExternalManifest(Manifest):
    """The manifest of an external module."""

    examples: ClassVar[Mapping[str, str]] = {
        **Manifest.examples,
        "exposes": "nothing: no rule judges what is imported from a package",
        "migrations": 'migrations = "own"',
        "name": 'name = "shop_reviews"',
        "entrypoint": 'entrypoint = "package.module:function"',
        "migrations_dir": 'migrations_dir = "migrations"',
        "models_module": 'models_module = "package.models"',
        "route_prefix": 'route_prefix = "/reviews", or "" for none',
    }

    exposes: tuple[()] = ()
    migrations: Literal["own"] = "own"
    name: Sentence | None = None
    entrypoint: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    migrations_dir: Sentence = "migrations"
    models_module: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")] | None = None
    route_prefix: Annotated[str, Field(pattern=r"^(/[^/\s?#]+)*$")] | None = None


@dataclass(frozen=True)
class ExternalModule(Module):
    """An installed package as a module."""

    manifest: ExternalManifest
    external: bool = True
    manifest_file: str = MANIFEST

    @property
    def route_prefix(self) -> str:
        """What the paths of its routes begin with."""
        return f"/{self.name}" if self.manifest.route_prefix is None else self.manifest.route_prefix

    @property
    def packages(self) -> list[str]:
        """The top-level packages with its code: its manifest may point to others than its own."""
        places = (self.name, self.manifest.entrypoint, self.manifest.models_module or self.name)
        return list(dict.fromkeys(re.split("[.:]", place)[0] for place in places))

    @property
    def versions(self) -> Path:
        return self.path / self.manifest.migrations_dir / "versions"

    @property
    def models(self) -> ModuleType | None:
        chosen = self.manifest.models_module
        try:
            return importlib.import_module(chosen) if chosen else self.part("models")
        except (Exception, SystemExit) as exc:
            name = chosen or f"{self.name}.models"
            raise self.fault("models_module", f"{name} cannot be imported: {type(exc).__name__}: {exc}") from exc

    def fault(self, key: str, what: str) -> ConfigError:
        """What is wrong with the package, by the key of its manifest."""
        return ConfigError(f"{shown(self.path / self.manifest_file)}: {key}: {what}")


def find_external(name: str) -> ExternalModule:
    """The installed package `name` as a module, its manifest a `module.toml` or that of fastappkit."""
    path = package_path(name)
    if name in TAKEN:
        raise ConfigError(f"MODULES: {name} is taken by the service itself: a package needs another name")
    if path is None:
        raise ConfigError(f"MODULES: no package {name} is installed")
    if (path / MANIFEST).exists():
        module = ExternalModule(name, path, read_manifest(path / MANIFEST, ExternalManifest))
        if module.manifest.name not in (None, name):
            raise module.fault("name", f'the package is called {name}; write name = "{name}", or leave it out')
        return module
    if (path / FASTAPPKIT_MANIFEST).exists():
        return ExternalModule(name, path, _of_fastappkit(path), manifest_file=FASTAPPKIT_MANIFEST)
    raise ConfigError(f"MODULES: {name} is no module: {shown(path)} has neither {MANIFEST} nor {FASTAPPKIT_MANIFEST}")


def package_path(name: str) -> Path | None:
    """The folder of the installed package `name`, found without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # what was put into sys.modules by hand
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _of_fastappkit(path: Path) -> ExternalManifest:
    """Its `migrations` is a folder, and keys that nobody knows mean nothing."""
    file = path / FASTAPPKIT_MANIFEST
    tool = read_toml(file).get("tool")
    table: Any = tool.get("fastappkit") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise ConfigError(f"{shown(file)}: there is no table [tool.fastappkit]")
    known = {"entrypoint": "entrypoint", "migrations": "migrations_dir"}
    known |= {"models_module": "models_module", "route_prefix": "route_prefix"}
    return check_manifest(file, {known[key]: table[key] for key in known if key in table}, ExternalManifest)
