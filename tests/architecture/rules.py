"""The boundaries of the house as a check of its import graph.

Entry points may use everything, core's registries the modules, modules the core; the core names no module.
A module sees another only as its root package. Inside a module the layers point one way.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import grimp

ENTRY_POINTS = ("main", "worker", "cli")
REGISTRIES = ("models", "routers", "tasks", "listeners")
LAYERS = ("routers", "routes", "policies", "deps", "gateway", "services", "repositories", "schemas", "models")
LEAVES = ("security", "events", "exceptions", "config")


@dataclass(frozen=True, order=True)
class Violation:
    """An import that crosses a boundary."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Import:
    """`importer` imports `imported`; both are names relative to the root package."""

    importer: str
    imported: str

    @property
    def owners(self) -> tuple[str, str]:
        """The first part of each name: core, an entry point or a module."""
        return self.importer.split(".", 1)[0], self.imported.split(".", 1)[0]

    @property
    def layers(self) -> tuple[str, str]:
        """The second part of each name, empty for a root package."""
        return _part(self.importer), _part(self.imported)


Rule = Callable[[Import], str | None]


def core_names_no_module(found: Import) -> str | None:
    """The core works without any module; only its registries load them, by manifest."""
    source, target = found.owners
    if source == "core" and target not in ("core", ""):
        return f"core imports {target}: turn the arrow round, with an event, a registry or an interface"
    return None


def modules_use_core_only(found: Import) -> str | None:
    """Entry points and registries stand above the modules."""
    source, target = found.owners
    if source in ("core", *ENTRY_POINTS):
        return None
    if target in ENTRY_POINTS:
        return f"module {source} imports the entry point {target}"
    if target == "core" and found.layers[1] in REGISTRIES:
        return f"module {source} imports core's registry {found.imported}: registries load modules, not the reverse"
    return None


def modules_meet_at_their_roots(found: Import) -> str | None:
    """The root package is a module's API; all below it is internal."""
    source, target = found.owners
    if source in ("core", target) or target in ("core", *ENTRY_POINTS) or "." not in found.imported:
        return None
    return f"{source} imports {found.imported}: import the name from the root package of {target}"


def layers_point_down(found: Import) -> str | None:
    """Inside a module each layer uses those below it; leaves use no layer."""
    source, target = found.owners
    if source != target or source in ("core", *ENTRY_POINTS):
        return None
    upper, lower = found.layers
    if upper in LEAVES and lower in LAYERS:
        return f"{upper} is a leaf and imports the layer {lower}"
    if upper in LAYERS and lower in LAYERS and LAYERS.index(upper) > LAYERS.index(lower):
        return f"{upper} imports {lower}, a layer above it"
    return None


RULES: tuple[Rule, ...] = (
    core_names_no_module,
    modules_use_core_only,
    modules_meet_at_their_roots,
    layers_point_down,
)


def violations(package: str, root: Path, rules: Iterable[Rule] = RULES) -> list[Violation]:
    """Every import of `package` (a folder in `root`) that a rule refuses, function-level and aliased ones too."""
    graph = grimp.build_graph(package, cache_dir=None)
    found = []
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            edge = Import(importer.removeprefix(package).lstrip("."), imported.removeprefix(package).lstrip("."))
            for fault in filter(None, (rule(edge) for rule in rules)):
                for detail in graph.get_import_details(importer=importer, imported=imported):
                    found.append(Violation(_file(root, importer), detail["line_number"], fault))
    return sorted(found)


def _part(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def _file(root: Path, module: str) -> str:
    path = root.joinpath(*module.split("."))
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return str(found.relative_to(root))
