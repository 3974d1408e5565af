"""What `kit module remove` takes away."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from app.core.configs import PROJECT_ROOT
from app.core.modules import Module, present_modules
from tools.generators.changes import Changes, is_kept, remove_empty
from tools.generators.packages import package_folder
from tools.generators.project import Record, carried_out, document_paths, is_kept_by_git, module_named
from tools.generators.revisions import removable_revisions


def factories_of(name: str) -> list[Path]:
    """The factories of a module's models."""
    folder = PROJECT_ROOT / "tests" / "factories"
    return [path for path in sorted(folder.glob("*.py")) if f"from app.{name}." in path.read_text(encoding="utf-8")]


_SETTING = re.compile(r"^    ([A-Z][A-Z0-9_]+):", re.MULTILINE)


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
    external: bool = False


def plan_removal(name: str) -> Removal:
    """The files of a module, what nobody could bring back, and who needs it."""
    if not (PROJECT_ROOT / "app" / name).is_dir() and package_folder(name).is_dir():
        return _plan_package_removal(name)
    module = module_named(name)
    changes = Changes(PROJECT_ROOT)
    for path in (*_files_below(*_folders_of(name)), *factories_of(name)):
        changes.delete(path)
    kept: list[str] = []
    if module.migrations == "shared":
        going, staying = removable_revisions(name)
        for path in going:
            changes.delete(path)
        kept = [changes.shown(path) for path in staying]
    return Removal(
        name,
        changes,
        _unknown(changes),
        [other.name for other in present_modules() if module.name in other.depends_on],
        _mentions(module, changes.deleted),
        kept,
        module.migrations == "own" and any((module.path / "migrations" / "versions").glob("*.py")),
    )


def _plan_package_removal(name: str) -> Removal:
    changes = Changes(PROJECT_ROOT)
    for path in _files_below(package_folder(name)):
        changes.delete(path)
    needed = [module.name for module in present_modules() if name in module.depends_on]
    return Removal(name, changes, _unknown(changes), needed, [], external=True)


def _unknown(changes: Changes) -> list[str]:
    """What is neither as it was generated nor in git."""
    record = Record()
    lost = [path for path in changes.deleted if not (record.is_untouched(path) or is_kept_by_git(path))]
    return [changes.shown(path) for path in lost]


def remove_module(removal: Removal) -> None:
    """Delete them."""
    folders = [package_folder(removal.name)] if removal.external else _folders_of(removal.name)
    with carried_out(removal.changes, documents=not removal.external):
        for folder in folders:
            remove_empty(folder)


def _folders_of(name: str) -> list[Path]:
    return [PROJECT_ROOT / "app" / name, PROJECT_ROOT / "tests" / name]


def _files_below(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*")) if is_kept(path)]


def _mentions(module: Module, going: list[Path]) -> list[str]:
    """Where else the module or one of its settings is named: `file:line`."""
    settings = _SETTING.findall("".join(path.read_text(encoding="utf-8") for path in module.path.glob("config.py")))
    words = [re.escape(module.name), rf"tests\.{module.short_name}", *settings]
    named = re.compile(rf"\b({'|'.join(words)})\b")
    folders = [path for base in ("app", "tests", "benchmarks") for path in (PROJECT_ROOT / base).rglob("*.*")]
    files = [path for path in folders if path.suffix in (".py", ".toml") and path not in going]
    written = [path for path in (PROJECT_ROOT / "docs").glob("*.md") if path not in document_paths()]
    found = []
    for path in sorted([*files, *written, *PROJECT_ROOT.glob(".sample.env")]):
        lines = path.read_text(encoding="utf-8").splitlines()
        place = str(path.relative_to(PROJECT_ROOT))
        found += [f"{place}:{number}" for number, line in enumerate(lines, 1) if named.search(line)]
    return found
