"""Plan a new module in app/, or a package beside the application that imports nothing of it."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.configs import PROJECT_ROOT
from app.core.modules import Module, discover, installed_modules, present_modules
from app.core.modules.discovery import EVERY, RESERVED, TAKEN
from tools.generators import source
from tools.generators.changes import Changes, GeneratorError, is_kept
from tools.generators.names import SNAKE, check_module_name

SHARED = "shared"
MODULE_MAP = PROJECT_ROOT / "docs" / "module-map.md"

_MODULE_FILES = {
    "module/module.toml": "app/{name}/module.toml",
    "module/__init__.py": "app/{name}/__init__.py",
    "module/routers.py": "app/{name}/routers.py",
    "module/tests/__init__.py": "tests/{name}/__init__.py",
    "module/tests/test_module.py": "tests/{name}/test_module.py",
}
_PACKAGE_FILES = {
    "external/pyproject.toml": "packages/{name}/pyproject.toml",
    "external/README.md": "packages/{name}/README.md",
    "external/package/__init__.py": "packages/{name}/{name}/__init__.py",
    "external/package/module.toml": "packages/{name}/{name}/module.toml",
    "external/package/kit.py": "packages/{name}/{name}/kit.py",
    "external/package/models.py": "packages/{name}/{name}/models.py",
    "external/package/schemas.py": "packages/{name}/{name}/schemas.py",
    "external/package/routes.py": "packages/{name}/{name}/routes.py",
    "external/package/revision.py": "packages/{name}/{name}/migrations/versions/0001_items.py",
    "external/package/py.typed": "packages/{name}/{name}/py.typed",
    "external/tests/__init__.py": "packages/{name}/tests/__init__.py",
    "external/tests/conftest.py": "packages/{name}/tests/conftest.py",
    "external/tests/standin.py": "packages/{name}/tests/standin.py",
    "external/tests/test_items.py": "packages/{name}/tests/test_items.py",
}


def package_folder(name: str) -> Path:
    """The folder of a generated package."""
    return PROJECT_ROOT / "packages" / name


def is_package(name: str) -> bool:
    """Return True if a package was generated under this name; a path is no name."""
    return SNAKE.fullmatch(name) is not None and package_folder(name).is_dir()


def module_named(name: str) -> Module:
    """The module in the folder `name`; GeneratorError where there is none."""
    modules = {module.short_name: module for module in present_modules()}
    if name not in modules:
        known = ", ".join(modules) or "none"
        raise GeneratorError(f"there is no module {name}; there are {known}. To make it: kit module new {name}")
    return modules[name]


def plan_module(name: str, migrations: str, *, force: bool) -> Changes:
    """The files of a new module without a model; GeneratorError where the name is taken."""
    known = {*present_modules(), *installed_modules()}
    check_module_name(name, ["core", *(module.short_name for module in known)])
    folder, tests = PROJECT_ROOT / "app" / name, PROJECT_ROOT / "tests" / name
    is_module = (folder / "module.toml").is_file()
    if is_module and not force:
        raise GeneratorError(f"the module {name} exists: add to it with kit model new {name} ...")
    if name in (*RESERVED, SHARED) or folder.with_suffix(".py").exists() or (not is_module and _holds_files(folder)):
        raise GeneratorError(f"app/{name} is a part of the application: choose another name")
    if not is_module and (_holds_files(tests) or tests.with_suffix(".py").exists()):
        raise GeneratorError(f"tests/{name} is there and tests something else: choose another name")
    return _planned(_MODULE_FILES, name, force, migrations=migrations)


def plan_package(name: str, *, force: bool) -> Changes:
    """The files of a new package with one table and its routes; GeneratorError where the name is taken."""
    if not (force and is_package(name)):
        others = ["core", *(module.short_name for module in present_modules())]
        if name in TAKEN:
            raise GeneratorError(f"{name} is taken by the service itself: choose another name")
        if name in others:
            raise GeneratorError(f"the module {name} exists: choose another name")
        check_module_name(name, others)
    return _planned(_PACKAGE_FILES, name, force)


def _planned(files: Mapping[str, str], name: str, force: bool, **values: Any) -> Changes:
    changes = Changes(PROJECT_ROOT)
    for template, path in files.items():
        text = source.rendered(template, name=name, words=name.replace("_", " "), **values)
        changes.made[PROJECT_ROOT / path.format(name=name)] = text
    if not force:
        changes.refuse_overwriting()
    return changes


def _holds_files(folder: Path) -> bool:
    return any(is_kept(path) for path in folder.rglob("*"))


def add_to_map(name: str) -> bool:
    """Add a new module without routes to the map of the modules; False where the map has no place for it.

    `kit module docs` would write the same, but has to load the application for it.
    """
    page = MODULE_MAP.read_text(encoding="utf-8") if MODULE_MAP.is_file() else ""
    order = [module.short_name for module in discover([EVERY])]
    following = next(iter(order[order.index(name) + 1 :]), None)
    nodes = re.search(r"(?<=flowchart LR\n)(?:    \w+(?: --> \w+)?\n)*", page)
    if nodes is None or (following and f"\n## {following}\n" not in page):
        return False
    drawn = nodes[0]
    place = drawn.index(f"    {following}\n") if following else len(drawn)
    page = page.replace(drawn, f"{drawn[:place]}    {name}\n{drawn[place:]}", 1)
    section = f"## {name}\n\n{module_named(name).summary} Uses no other module.\n"
    at = page.index(f"## {following}\n") if following else len(page)
    before, after = page[:at], page[at:]
    MODULE_MAP.write_text(f"{before}{section}\n{after}" if after else f"{before}\n{section}", encoding="utf-8")
    return True


def with_dependency(manifest: str, module: str) -> str:
    """The text of a manifest that names `module` in `depends_on`."""
    content = tomllib.loads(manifest)
    listed = content.get("depends_on", [])
    if module in listed:
        return manifest
    names = ", ".join(f'"{name}"' for name in (*listed, module))
    line = f"depends_on = [{names}]"
    if "depends_on" in content:
        return re.sub(r"^depends_on\s*=\s*\[[^\]]*\]", line, manifest, count=1, flags=re.MULTILINE)
    return f"{line}\n{manifest}"
