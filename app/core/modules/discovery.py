"""Find the modules that `MODULES` names, check them and put them into load order."""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.core.configs import PROJECT_ROOT
from app.core.exceptions import ConfigError
from app.core.modules.manifest import (
    MANIFEST,
    ExternalManifest,
    Manifest,
    check_manifest,
    did_you_mean,
    read_manifest,
    read_toml,
    shown,
)
from app.core.modules.module import ExternalModule, Module

PACKAGE = "app"
EVERY = f"{PACKAGE}.*"
RESERVED = ("core", "cli", "main", "worker")
TAKEN = ("app", "core", "shared")
FASTAPPKIT_MANIFEST = "fastappkit.toml"


def discover(names: Sequence[str], root: Path = PROJECT_ROOT) -> list[Module]:
    """Return the modules that `names` choose, dependencies first, otherwise in the order they are named.

    `app.*` stands for every module below `app/`, `app.shop` for one, `-app.shop` leaves one out, another dotted
    name is a folder of the project, as `tests.faults`, any other an external package. Every fault is one line of a
    ConfigError.
    """
    elsewhere = [name for name in names if "." in name and (root.joinpath(*name.split(".")) / MANIFEST).is_file()]
    modules = _read(_chosen(names, _folders(root), elsewhere), root)
    _check_dependencies(modules, root)
    return _in_load_order(modules)


def present_modules(root: Path = PROJECT_ROOT, package: str = PACKAGE) -> list[Module]:
    """Return the modules in the folder `package`, installed or not, by name."""
    return list(_read(_folders(root, package), root).values())


def table_owner(table: str, owners: Iterable[str]) -> str | None:
    """Return which of `owners` (short names, `core` among them) owns a table: the longest `<name>_` it begins with."""
    return max((name for name in owners if table.startswith(f"{name}_")), key=len, default=None)


def _folders(root: Path, package: str = PACKAGE) -> list[str]:
    return sorted(f"{package}.{manifest.parent.name}" for manifest in (root / package).glob(f"*/{MANIFEST}"))


def _chosen(names: Sequence[str], present: list[str], elsewhere: list[str]) -> list[str]:
    """Return the names without patterns, each once, in order."""
    left_out = [name.removeprefix("-") for name in names if name.startswith("-")]
    listed = [name for name in names if not name.startswith("-")] or ([EVERY] if left_out else [])
    faults = [f"MODULES names {name} twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for name in dict.fromkeys(listed + left_out):
        if name in present or name in elsewhere or name == EVERY:
            continue
        if name.startswith(f"{PACKAGE}.") or name in left_out:
            faults.append(f"MODULES: {name} does not exist{did_you_mean(name, present)}")
        elif not name.isidentifier():
            faults.append(f"MODULES: {name!r} is no module name: write {EVERY}, app.<folder> or a package's name")
        elif not package_path(name):
            faults.append(f"MODULES: no package {name} is installed{did_you_mean(name, present)}")
    if faults:
        raise ConfigError("\n".join(faults))
    chosen = [one for name in listed for one in (present if name == EVERY else [name]) if one not in left_out]
    return list(dict.fromkeys(chosen))


def _read(names: Iterable[str], root: Path) -> dict[str, Module]:
    modules, faults = {}, []
    for name in names:
        try:
            modules[name] = _read_one(name, root)
        except ConfigError as exc:
            faults.append(str(exc))
    by_short_name: dict[str, Module] = {}
    for module in modules.values():
        other = by_short_name.setdefault(module.short_name, module)
        if other is not module:
            faults.append(f"MODULES: {other.name} and {module.name} would both own the tables {module.table_prefix}*")
    if faults:
        raise ConfigError("\n".join(faults))
    return modules


def _read_one(name: str, root: Path) -> Module:
    if "." not in name:
        return find_external(name)
    path = root.joinpath(*name.split("."))
    if path.name in RESERVED:
        taken = f"{name} is part of the service itself: remove the file, or rename the folder"
        raise ConfigError(f"{shown(path / MANIFEST)}: {taken}")
    if not path.name.isidentifier():
        raise ConfigError(f"{shown(path)}: {path.name!r} cannot be imported: rename the folder, for example app/shop")
    if not (path / "__init__.py").is_file():
        raise ConfigError(f"{shown(path)} has no __init__.py: add one, its docstring says what the module is for")
    module = Module(name, path, read_manifest(path / MANIFEST, Manifest))
    _check_exposed(module)
    return module


def _check_exposed(module: Module) -> None:
    present = [path.stem for path in sorted(module.path.glob("[!_]*")) if _is_part(module, path.stem)]
    faults = []
    for part in module.manifest.exposes:
        if not _is_part(module, part):
            likely = part.removesuffix(".py").replace("/", ".").removeprefix(f"{module.name}.")
            advice = f"; write {likely}" if _is_part(module, likely) else did_you_mean(part, present) or ": take it out"
            faults.append(f"{shown(module.path / MANIFEST)}: exposes: {module.name} has no {part}{advice}")
    if faults:
        raise ConfigError("\n".join(faults))


def _is_part(module: Module, name: str) -> bool:
    """True if `name`, as `schemas.user`, is a file or a package of the module."""
    path = module.path.joinpath(*name.split("."))
    named = all(map(str.isidentifier, name.split(".")))
    return named and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def _check_dependencies(modules: dict[str, Module], root: Path) -> None:
    faults = []
    for module in modules.values():
        for other in module.depends_on:
            if other in modules:
                continue
            known = [*modules, *_folders(root)]
            reason = f"is no module{did_you_mean(other, known) or ': take it out'}"
            if other in known or (other.isidentifier() and package_path(other)):
                reason = "is not installed: add it to MODULES"
            faults.append(f"{shown(module.path / MANIFEST)}: depends_on: {other} {reason}")
    if faults:
        raise ConfigError("\n".join(faults))


def _in_load_order(modules: dict[str, Module]) -> list[Module]:
    ordered: dict[str, Module] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            circle = " > ".join((*trail[trail.index(name) :], name))
            raise ConfigError(f"modules depend on each other in a circle: {circle}; take one out of a depends_on")
        if name not in ordered:
            for other in modules[name].depends_on:
                visit(other, (*trail, name))
            ordered[name] = modules[name]

    for name in modules:
        visit(name, ())
    return list(ordered.values())


def find_external(name: str) -> ExternalModule:
    """Return the installed package `name` as a module; its manifest is a `module.toml` or that of fastappkit."""
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
    """Return the folder of the installed package `name`, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # what was put into sys.modules by hand
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _of_fastappkit(path: Path) -> ExternalManifest:
    """Read a manifest of fastappkit: its `migrations` is a folder, unknown keys are ignored."""
    file = path / FASTAPPKIT_MANIFEST
    tool = read_toml(file).get("tool")
    table: Any = tool.get("fastappkit") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise ConfigError(f"{shown(file)}: there is no table [tool.fastappkit]")
    known = {"entrypoint": "entrypoint", "migrations": "migrations_dir"}
    known |= {"models_module": "models_module", "route_prefix": "route_prefix"}
    return check_manifest(file, {known[key]: table[key] for key in known if key in table}, ExternalManifest)
