"""What `kit module new` makes and `kit module remove` takes away."""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from app.cli.generators import source
from app.cli.generators.changes import Changes, remove_empty
from app.cli.generators.errors import GeneratorError
from app.cli.generators.names import check_module_name, table_clash
from app.cli.generators.project import Record, carried_out, is_kept_by_git, module_named
from app.cli.generators.revisions import removable_revisions
from app.core.configs import PROJECT_ROOT
from app.core.modules import Module, installed_modules, present_modules
from app.core.modules.discovery import RESERVED

_FILES = {
    "module/module.toml": "app/{name}/module.toml",
    "module/__init__.py": "app/{name}/__init__.py",
    "module/routers.py": "app/{name}/routers.py",
    "module/tests/__init__.py": "tests/{name}/__init__.py",
    "module/tests/test_module.py": "tests/{name}/test_module.py",
}


def plan_module(name: str, *, migrations: str, force: bool) -> Changes:
    """The files of a new module without a model."""
    check_module_name(name)
    _check_free(name, force=force)
    changes = Changes(PROJECT_ROOT)
    for template, path in _FILES.items():
        text = source.rendered(template, name=name, words=name.replace("_", " "), migrations=migrations)
        changes.make(PROJECT_ROOT / path.format(name=name), text)
    if not force:
        changes.refuse_overwriting()
    return changes


def make_module(changes: Changes) -> None:
    """Write them."""
    with carried_out(changes):
        pass


def _check_free(name: str, *, force: bool) -> None:
    """GeneratorError where another module, a part of the application or other tests have the name."""
    folder, tests = PROJECT_ROOT / "app" / name, PROJECT_ROOT / "tests" / name
    is_module = (folder / "module.toml").is_file()
    if is_module and not force:
        raise GeneratorError(f"the module {name} exists: add to it with kit model new {name} ...")
    if name in RESERVED or folder.with_suffix(".py").exists() or (folder.exists() and not is_module and not force):
        raise GeneratorError(f"app/{name} is a part of the application: choose another name")
    if not is_module and (tests.exists() or tests.with_suffix(".py").exists()):
        raise GeneratorError(f"tests/{name} is there and tests something else: choose another name")
    known = {*present_modules(), *installed_modules()}
    others = [other for other in ("core", *(module.short_name for module in known)) if other != name]
    if other := table_clash(name, sorted(others)):
        longer, shorter = sorted((name, other), key=len, reverse=True)
        raise GeneratorError(
            f"the tables {longer}_* would be taken for those of {shorter}, as they begin with {shorter}_: "
            "choose another name"
        )


def factories_of(name: str) -> list[Path]:
    """The factories of a module's models."""
    folder = PROJECT_ROOT / "tests" / "factories"
    return [path for path in sorted(folder.glob("*.py")) if f"from app.{name}." in path.read_text(encoding="utf-8")]


@dataclass
class Removal:
    """What goes with a module, and what does not."""

    name: str
    changes: Changes
    unknown: list[str]
    dependants: list[str]
    mentions: list[str]
    kept_revisions: list[str] = field(default_factory=list)
    own_timeline: bool = False


def plan_removal(name: str) -> Removal:
    """The files of a module, what nobody could bring back, and who needs it."""
    module = module_named(name)
    changes = Changes(PROJECT_ROOT)
    for path in _files_of(name):
        changes.delete(path)
    kept: list[str] = []
    if module.migrations == "shared":
        going, staying = removable_revisions(name)
        for path in going:
            changes.delete(path)
        kept = [changes.shown(path) for path in staying]
    record = Record()
    unknown = [path for path in changes.deleted if not (record.is_untouched(path) or is_kept_by_git(path))]
    return Removal(
        name,
        changes,
        [changes.shown(path) for path in unknown],
        [other.name for other in present_modules() if module.name in other.depends_on],
        _mentions(module, changes.deleted),
        kept,
        module.migrations == "own" and any((module.path / "migrations" / "versions").glob("*.py")),
    )


def remove_module(removal: Removal) -> None:
    """Delete them."""
    with carried_out(removal.changes):
        for folder in _folders_of(removal.name):
            remove_empty(folder)


def _folders_of(name: str) -> list[Path]:
    return [folder for base in ("app", "tests") if (folder := PROJECT_ROOT / base / name).is_dir()]


def _files_of(name: str) -> list[Path]:
    files = [path for folder in _folders_of(name) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if "__pycache__" not in path.parts] + factories_of(name)


def _mentions(module: Module, going: list[Path]) -> list[str]:
    """Where else the module is named: `file:line`."""
    named = re.compile(rf"\b{re.escape(module.name)}\b|tests\.{module.short_name}\b")
    found = []
    for base in ("app", "tests", "benchmarks"):
        for path in sorted((PROJECT_ROOT / base).rglob("*")):
            if path.suffix not in (".py", ".toml") or path in going:
                continue
            lines = path.read_text(encoding="utf-8").splitlines()
            place = str(path.relative_to(PROJECT_ROOT))
            found += [f"{place}:{number}" for number, line in enumerate(lines, 1) if named.search(line)]
    return found


def with_dependency(manifest: str, module: str) -> str:
    """The text of a manifest that names `module` in `depends_on`."""
    listed = tomllib.loads(manifest).get("depends_on", [])
    if module in listed:
        return manifest
    names = ", ".join(f'"{name}"' for name in (*listed, module))
    line = f"depends_on = [{names}]"
    if "depends_on" in tomllib.loads(manifest):
        return re.sub(r"^depends_on\s*=\s*\[[^\]]*\]", line, manifest, count=1, flags=re.MULTILINE)
    return f"{line}\n{manifest}"
