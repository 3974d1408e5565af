"""Plan and carry out the removal of a module or a package."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from app.core.configs import PROJECT_ROOT
from app.core.modules import Module, present_modules
from tools.generators.changes import Changes, is_kept, remove_empty
from tools.generators.modules import SHARED, is_package, module_named, package_folder
from tools.generators.project import DOCUMENTS, Record, carry_out, is_in_git, is_kept_by_git, write_documents

_SETTING = re.compile(r"^    ([A-Z][A-Z0-9_]+):", re.MULTILINE)
_SECTIONS = {".sample.env": ("# --- ", r"^([A-Z0-9_]+)="), "docs/configuration.md": ("##", r"^\| `([A-Z0-9_]+)` \|")}
"""Where settings are listed: how a section begins, and where it names one."""


@dataclass
class Removal:
    """The files to delete with a module, reasons against it, and what stays behind."""

    changes: Changes
    folders: list[Path]
    dependants: list[str]
    unknown: list[str] = field(default_factory=list)
    mentions: list[str] = field(default_factory=list)
    kept_revisions: list[str] = field(default_factory=list)
    own_timeline: bool = False
    external: bool = False


def plan_removal(name: str) -> Removal:
    """The files of a module or a package, those that nobody could bring back, and who needs it."""
    external = not (PROJECT_ROOT / "app" / name).is_dir() and is_package(name)
    module = None if external else module_named(name)
    folders = [package_folder(name)] if external else [PROJECT_ROOT / "app" / name, PROJECT_ROOT / "tests" / name]
    import_name = module.name if module else name
    removal = Removal(
        Changes(PROJECT_ROOT),
        folders,
        [other.name for other in present_modules() if import_name in other.depends_on],
        external=external,
    )
    deleted = removal.changes.deleted
    deleted += [path for folder in folders for path in sorted(folder.rglob("*")) if is_kept(path)]
    if module:
        deleted += _factories_of(name)
        if module.migrations == SHARED:
            going, staying = _revisions_of(name)
            deleted += going
            removal.kept_revisions = [removal.changes.shown(path) for path in staying]
        removal.own_timeline = module.migrations == "own" and any(module.versions.glob("*.py"))
        _plan_pages(module, removal.changes)
        removal.mentions = _mentions(module, removal.changes)
    record = Record()
    lost = [path for path in deleted if not (record.is_untouched(path) or is_kept_by_git(path))]
    removal.unknown = [removal.changes.shown(path) for path in lost]
    return removal


def remove_module(removal: Removal) -> None:
    """Delete the files, and the folders that are empty then."""

    def finish() -> list[Path]:
        for folder in removal.folders:
            remove_empty(folder)
        return [] if removal.external else write_documents()

    carry_out(removal.changes, finish)


def _plan_pages(module: Module, changes: Changes) -> None:
    """Delete its page of the docs, the page's line in the README, and sections that list its settings alone."""
    page = f"docs/{module.short_name.replace('_', '-')}.md"
    if f"`app/{module.short_name}`" in changes.text_of(PROJECT_ROOT / page):  # not core's page of that name
        changes.deleted.append(PROJECT_ROOT / page)
        links = changes.text_of(PROJECT_ROOT / "README.md")
        _plan_text(changes, "README.md", re.sub(rf"(?m)^\[[^\]]*\]\({re.escape(page)}\) ·\n", "", links))
    settings = set(_settings_of(module))
    for name, (heading, setting) in _SECTIONS.items():
        parts = re.split(rf"(?m)^(?={heading})", changes.text_of(PROJECT_ROOT / name))
        named = [set(re.findall(setting, part, re.MULTILINE)) for part in parts]
        kept = [part for part, names in zip(parts, named, strict=True) if not names or not names <= settings]
        _plan_text(changes, name, "".join(kept))


def _plan_text(changes: Changes, name: str, text: str) -> None:
    path = PROJECT_ROOT / name
    if text != changes.text_of(path):
        changes.changed[path] = text.rstrip() + "\n"


def _settings_of(module: Module) -> list[str]:
    return _SETTING.findall("".join(path.read_text(encoding="utf-8") for path in module.path.glob("config.py")))


def _factories_of(name: str) -> list[Path]:
    """The factories of a module's models."""
    folder = PROJECT_ROOT / "tests" / "factories"
    return [path for path in sorted(folder.glob("*.py")) if f"from app.{name}." in path.read_text(encoding="utf-8")]


def _revisions_of(name: str) -> tuple[list[Path], list[Path]]:
    """Find revisions of the shared timeline that only made the module's tables: those to delete, and those that stay.

    One is deleted while it is the last, was not run on the configured database and is not in git.
    """
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.migrations.migrate import Migrations
    from app.core.migrations.timelines import MigrationError
    from tools.migrations.reader import read

    migrations = Migrations()
    scripts = migrations.scripts(migrations.timelines[SHARED])
    is_last = len(scripts.get_heads()) == 1
    try:
        applied = {info.revision for info in migrations.history(SHARED) if info.applied}
    except (MigrationError, CommandError, SQLAlchemyError):  # the database cannot be asked
        applied, is_last = set(), False
    going: list[Path] = []
    staying: list[Path] = []
    for script in scripts.walk_revisions():
        path = Path(script.path)
        touched = {table for one in read(script).operations for table in one.tables}
        if {migrations.timelines.prefix(table) for table in touched} != {name}:
            is_last = False
            continue
        is_last = is_last and script.revision not in applied and not is_in_git(path)
        (going if is_last else staying).append(path)
    return going, staying


def _mentions(module: Module, changes: Changes) -> list[str]:
    """Find other places that will name the module or one of its settings, as `file:line`."""
    words = [re.escape(module.name), rf"tests\.{module.short_name}", *_settings_of(module)]
    named = re.compile(rf"\b({'|'.join(words)})\b")
    code = [path for base in ("app", "tools", "tests", "benchmarks") for path in (PROJECT_ROOT / base).rglob("*.*")]
    files = [path for path in code if path.suffix in (".py", ".toml") and path not in changes.deleted]
    pages = [path for path in (PROJECT_ROOT / "docs").glob("*.md") if path not in (*DOCUMENTS, *changes.deleted)]
    found = []
    for path in sorted([*files, *pages, *PROJECT_ROOT.glob(".sample.env")]):
        lines = changes.text_of(path).splitlines()
        place = path.relative_to(PROJECT_ROOT)
        found += [f"{place}:{number}" for number, line in enumerate(lines, 1) if named.search(line)]
    return found
