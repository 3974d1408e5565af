"""What `kit module new` makes."""

import re
import tomllib
from pathlib import Path

from app.core.configs import PROJECT_ROOT
from app.core.migrations.timelines import SHARED
from app.core.modules import installed_modules, present_modules
from app.core.modules.discovery import RESERVED
from tools.generators import source
from tools.generators.changes import Changes, is_kept
from tools.generators.errors import GeneratorError
from tools.generators.names import check_module_name, table_clash

_FILES = {
    "module/module.toml": "app/{name}/module.toml",
    "module/__init__.py": "app/{name}/__init__.py",
    "module/routers.py": "app/{name}/routers.py",
    "module/tests/__init__.py": "tests/{name}/__init__.py",
    "module/tests/test_module.py": "tests/{name}/test_module.py",
}


def plan_module(name: str, migrations: str, *, force: bool) -> Changes:
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


def _check_free(name: str, *, force: bool) -> None:
    """GeneratorError where another module, a part of the application or other tests have the name."""
    folder, tests = PROJECT_ROOT / "app" / name, PROJECT_ROOT / "tests" / name
    is_module = (folder / "module.toml").is_file()
    if is_module and not force:
        raise GeneratorError(f"the module {name} exists: add to it with kit model new {name} ...")
    if name in (*RESERVED, SHARED) or folder.with_suffix(".py").exists() or (not is_module and _holds_files(folder)):
        raise GeneratorError(f"app/{name} is a part of the application: choose another name")
    if not is_module and (_holds_files(tests) or tests.with_suffix(".py").exists()):
        raise GeneratorError(f"tests/{name} is there and tests something else: choose another name")
    known = {*present_modules(), *installed_modules()}
    others = [other for other in ("core", *(module.short_name for module in known)) if other != name]
    if other := table_clash(name, sorted(others)):
        longer, shorter = sorted((name, other), key=len, reverse=True)
        raise GeneratorError(
            f"the tables {longer}_* would be taken for those of {shorter}, as they begin with {shorter}_: "
            "choose another name"
        )


def _holds_files(folder: Path) -> bool:
    return any(is_kept(path) for path in folder.rglob("*"))


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
