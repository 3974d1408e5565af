"""What `kit module new --external` makes: a package beside the application that imports nothing of it."""

from pathlib import Path

from app.core.configs import PROJECT_ROOT
from app.core.modules import present_modules
from app.core.modules.external import TAKEN
from tools.generators import source
from tools.generators.changes import Changes
from tools.generators.errors import GeneratorError
from tools.generators.names import check_module_name, table_clash

FOLDER = "packages"

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "package/__init__.py": "{name}/__init__.py",
    "package/module.toml": "{name}/module.toml",
    "package/kit.py": "{name}/kit.py",
    "package/models.py": "{name}/models.py",
    "package/schemas.py": "{name}/schemas.py",
    "package/routes.py": "{name}/routes.py",
    "package/revision.py": "{name}/migrations/versions/0001_items.py",
    "tests/conftest.py": "tests/conftest.py",
    "tests/standin.py": "tests/standin.py",
    "tests/test_items.py": "tests/test_items.py",
}
_EMPTY = ("{name}/py.typed", "tests/__init__.py")


def package_folder(name: str) -> Path:
    """Where a generated package is."""
    return PROJECT_ROOT / FOLDER / name


def plan_package(name: str, *, force: bool) -> Changes:
    """The files of a new package with one table and its routes."""
    folder = package_folder(name)
    if not (force and folder.is_dir()):
        _check_free(name)
    changes = Changes(PROJECT_ROOT)
    for template, path in _FILES.items():
        text = source.rendered(f"external/{template}", name=name, words=name.replace("_", " "))
        changes.make(folder / path.format(name=name), text)
    for path in _EMPTY:
        changes.make(folder / path.format(name=name), "")
    if not force:
        changes.refuse_overwriting()
    return changes


def _check_free(name: str) -> None:
    check_module_name(name)
    if name in TAKEN:
        raise GeneratorError(f"{name} is taken by the service itself: choose another name")
    others = ("core", *(module.short_name for module in present_modules()))
    if name in others:
        raise GeneratorError(f"the module {name} exists: choose another name")
    if other := table_clash(name, sorted(others)):
        raise GeneratorError(f"the tables of {name} and {other} would begin alike: choose another name")
