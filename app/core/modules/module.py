"""A module, as the rest of the core sees it: a folder of the project, or an installed package."""

import ast
import importlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

from app.core.exceptions import ConfigError
from app.core.modules.manifest import MANIFEST, ExternalManifest, Manifest, shown


@dataclass(frozen=True)
class Module:
    """One module: its import name, its folder and what its manifest says."""

    name: str
    path: Path
    manifest: Manifest = field(default_factory=Manifest)
    external: bool = False

    @property
    def short_name(self) -> str:
        """Name of the folder; tables and timelines are named after it."""
        return self.name.rpartition(".")[2]

    @property
    def table_prefix(self) -> str:
        """Prefix of the names of the module's tables."""
        return f"{self.short_name}_"

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The import names of the modules it may use."""
        return self.manifest.depends_on

    @property
    def public(self) -> tuple[str, ...]:
        """The import names that others may use: its root, and the submodules that its manifest exposes."""
        return self.name, *(f"{self.name}.{part}" for part in self.manifest.exposes)

    @property
    def migrations(self) -> Literal["shared", "own"]:
        """Timeline of its revisions: the shared one or its own."""
        return self.manifest.migrations

    @property
    def versions(self) -> Path:
        """Folder of the revisions of a timeline of its own."""
        return self.path / "migrations" / "versions"

    @property
    def models(self) -> ModuleType | None:
        """Import and return its models, or None where it has none."""
        return self.part("models")

    @property
    def summary(self) -> str:
        """The first line of its docstring, read without importing it."""
        try:
            source = (self.path / "__init__.py").read_text(encoding="utf-8")
            return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        except (OSError, SyntaxError, ValueError):
            return ""

    @property
    def root(self) -> ModuleType:
        """Import and return the module itself."""
        return importlib.import_module(self.name)

    def part(self, name: str) -> ModuleType | None:
        """Import and return the submodule `name`, or None where it has none."""
        target = f"{self.name}.{name}"
        return importlib.import_module(target) if importlib.util.find_spec(target) else None


@dataclass(frozen=True)
class ExternalModule(Module):
    """An installed package as a module."""

    manifest: ExternalManifest
    external: bool = True
    manifest_file: str = MANIFEST

    @property
    def route_prefix(self) -> str:
        """Prefix of the paths of its routes."""
        return f"/{self.name}" if self.manifest.route_prefix is None else self.manifest.route_prefix

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
        """Make an error that names the manifest and its key."""
        return ConfigError(f"{shown(self.path / self.manifest_file)}: {key}: {what}")
