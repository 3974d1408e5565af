"""E1: an external package imports nothing of the service, also not by way of other packages."""

import ast
import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from app.core.configs import PROJECT_ROOT
from app.core.modules.manifest import shown
from app.core.modules.module import ExternalModule
from tools.boundaries.violations import Violation

_LOCKED = re.compile(r"^([\w.-]+)[^=\s]*==", re.MULTILINE)


def isolation_violations(module: ExternalModule, forbidden: str = "app") -> list[Violation]:
    """Find imports of `forbidden` in the package of `module` and in those that it uses, by place.

    Packages that the service itself is built on are skipped: they were there before the service, and are large.
    """
    known = {forbidden, *sys.stdlib_module_names, *_built_on()}
    waiting = _packages(module)
    trails: dict[str, tuple[str, ...]] = {name: (name,) for name in waiting}
    violations = []
    while waiting:
        trail = trails[waiting.pop(0)]
        for file, line, name in _imports_of(trail[-1]):
            package = name.partition(".")[0]
            if package == forbidden:
                violations.append(_violation(file, line, name, trail))
            elif package not in known | trails.keys():
                trails[package] = (*trail, package)
                waiting.append(package)
    return sorted(violations)


def _packages(module: ExternalModule) -> list[str]:
    """The top-level packages with its code: its manifest may point to others than its own."""
    places = (module.name, module.manifest.entrypoint, module.manifest.models_module or module.name)
    return list(dict.fromkeys(re.split("[.:]", place)[0] for place in places))


def _violation(file: Path, line: int, imported: str, trail: tuple[str, ...]) -> Violation:
    message = f"{trail[-1]} imports {imported}"
    fix = "take what it needs from app.state.kit, or make it a module below app/"
    if len(trail) > 1:
        message += f", and {' uses '.join(trail)}"
        fix = f"do without {trail[1]} in {trail[0]}: what imports the service is not installed beside it"
    return Violation(shown(file), line, "E1", message, fix)


def _built_on() -> set[str]:
    """The import names of the locked requirements."""
    texts = [path.read_text(encoding="utf-8") for path in PROJECT_ROOT.glob("requirements*.txt")]
    locked = {_plain(name) for text in texts for name in _LOCKED.findall(text)}
    return {name for name, found in packages_distributions().items() if locked & set(map(_plain, found))}


def _plain(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _imports_of(package: str) -> Iterator[tuple[Path, int, str]]:
    """Absolute imports anywhere in it, and those by `import_module("app...")`."""
    for file in _files(package):
        try:
            with warnings.catch_warnings(action="ignore"):  # of other people's code
                tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # templates, and tests of other Pythons, lie in packages too
            continue
        for node in ast.walk(tree):
            for name in _named(node):
                yield file, getattr(node, "lineno", 1), name


def _files(package: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # `__main__`, and what was put into sys.modules by hand
        return []
    if spec and spec.submodule_search_locations:
        return sorted(file for folder in spec.submodule_search_locations for file in Path(folder).rglob("*.py"))
    return [Path(spec.origin)] if spec and spec.origin and spec.origin.endswith(".py") else []


def _named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.module and not node.level else []
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [*node.args[:1], *(item.value for item in node.keywords if item.arg == "name")]
        if called in ("import_module", "__import__"):
            texts = [item.value for item in given if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            return [text for text in texts if text.partition(".")[0].isidentifier()]
    return []
