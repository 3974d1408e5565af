"""E1: an external package imports nothing of the service, also not by way of other packages."""

import ast
import importlib.machinery
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from app.core.boundaries.violations import Violation
from app.core.modules import Module
from app.core.modules.external import package_path
from app.core.modules.manifest import shown

_IMPORT = re.compile(rb"^\s*(?:import|from)\s+([\w., ]+)", re.MULTILINE)
_CALLS = ("import_module", "__import__")


class _Place(NamedTuple):
    line: int
    imported: str


def isolation_violations(module: Module, forbidden: str = "app") -> list[Violation]:
    """Where the package of `module`, or one that it uses, imports `forbidden`, by place."""
    found = []
    for name, trail in _used(module.name, forbidden):
        for file in _files(name):
            for place in _imports_of(file, forbidden):
                way = f"{name} imports {place.imported}"
                if len(trail) > 1:
                    way += f", and {' uses '.join(trail)}"
                found.append(Violation(shown(file), place.line, "E1", way, _fix(module.name, trail)))
    return sorted(found)


def _fix(name: str, trail: tuple[str, ...]) -> str:
    if len(trail) == 1:
        return "take what it needs from app.state.kit, or make it a module below app/"
    return f"do without {trail[1]} in {name}: what imports the service cannot be installed beside it"


def _used(start: str, forbidden: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The package, and every other that is reached from it, each with the way there."""
    waiting: list[tuple[str, ...]] = [(start,)]
    seen = {start, forbidden, *sys.stdlib_module_names}
    while waiting:
        trail = waiting.pop(0)
        yield trail[-1], trail
        for name in sorted(_mentioned(trail[-1]) - seen):
            seen.add(name)
            waiting.append((*trail, name))


def _mentioned(name: str) -> set[str]:
    """The top-level names after `import` and `from`; what is no package has no files, and costs nothing."""
    names: set[str] = set()
    for file in _files(name):
        for match in _IMPORT.findall(file.read_bytes()):
            names |= {part.split()[0].partition(".")[0] for part in match.decode().split(",") if part.strip()}
    return {name for name in names if name.isidentifier()}


def _files(name: str) -> list[Path]:
    path = package_path(name)
    if path is not None:
        return sorted(path.rglob("*.py"))
    spec = importlib.machinery.PathFinder.find_spec(name)
    return [Path(spec.origin)] if spec and spec.origin and spec.origin.endswith(".py") else []


def _imports_of(file: Path, forbidden: str) -> Iterator[_Place]:
    """Import statements anywhere in it, and `import_module("app...")`."""
    source = file.read_bytes()
    if forbidden.encode() not in source:
        return
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # templates and tests of other Pythons lie in packages too
        return
    for node in ast.walk(tree):
        for name in _named(node):
            if name == forbidden or name.startswith(f"{forbidden}."):
                yield _Place(getattr(node, "lineno", 1), name)


def _named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.module and not node.level else []
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [*node.args[:1], *(item.value for item in node.keywords if item.arg == "name")]
        texts = [item.value for item in given if isinstance(item, ast.Constant)]
        return [text for text in texts if isinstance(text, str)] if called in _CALLS else []
    return []
