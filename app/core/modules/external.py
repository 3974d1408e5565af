"""Modules that are pip-installed packages and import nothing of `app`."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from app.core.exceptions import ConfigError
from app.core.modules.manifest import MANIFEST, Manifest, Sentence, read_manifest
from app.core.modules.module import Module


class ExternalManifest(Manifest):
    """The manifest of an external module."""

    examples: ClassVar[Mapping[str, str]] = {
        **Manifest.examples,
        "migrations": 'migrations = "own"',
        "entrypoint": 'entrypoint = "package.module:function"',
        "route_prefix": 'route_prefix = "/reviews", or "" for none',
    }

    migrations: Literal["own"] = "own"
    entrypoint: Sentence
    route_prefix: str | None = None


def find_external(name: str) -> Module:
    """The installed package `name` as a module."""
    path = package_path(name)
    if path is None:
        raise ConfigError(f"MODULES: no package {name} is installed")
    return Module(name, path, read_manifest(path / MANIFEST, ExternalManifest), external=True)


def package_path(name: str) -> Path | None:
    """The folder of the installed package `name`, found without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # what was put into sys.modules by hand
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
