"""The rules that one import alone can break: M1, M2, M4, M5 and M7; what only all of them show is in circles.py.

Entry points may use everything, core's registries the modules, modules the core.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.core.modules import Module
from tools.boundaries.imports import TOOLS, Import, file_of, unseen_files
from tools.boundaries.violations import Exceptions, Violation, manifest_of

CORE = "core"
ENTRY_POINTS = ("main", "worker", "cli")
REGISTRIES = ("models", "routers", "tasks", "listeners")
LAYERS = (
    ("routers",),
    ("listeners", "bootstrap", "cli", "health", "authenticators", "personal_data"),
    ("routes",),
    ("policies",),
    ("tasks",),
    ("deps",),
    ("gateway",),
    ("services",),
    ("emails",),
    ("repositories",),
    ("schemas",),
    ("models",),
)
LEAVES = ("security", "events", "exceptions", "config", "permissions", "metrics")
USED_BY_SERVICES = {"policies": "ask this policy", "tasks": "push this task"}
"""Layers above services whose files a service may use: such a file then stands below services itself."""
FLOORS = (
    ("runtime", "exporter"),
    ("kit",),
    ("migrations",),
    REGISTRIES,
    ("modules",),
    ("api",),
    ("deps",),
    ("services",),
    ("db",),
    ("metrics",),
    ("configs",),
    ("process", "identity"),
    ("exceptions",),
)
"""Core from the top; what stands on one line may use each other."""
_MODULE_HEIGHT = {layer: height for height, layers in enumerate(reversed(LAYERS)) for layer in layers}
_CORE_HEIGHT = {floor: height for height, floors in enumerate(reversed(FLOORS)) for floor in floors}


class Fault(NamedTuple):
    """The fault of an import, and its fix."""

    message: str
    fix: str


@dataclass(frozen=True)
class Names:
    """An import's two names, taken apart: `app.shop.services.orders` is owner `shop`, layer `services`."""

    importer: str
    imported: str

    @property
    def owners(self) -> tuple[str, str]:
        """The second part of each: core, an entry point or a module; empty for the package itself."""
        return _part(self.importer, 1), _part(self.imported, 1)

    @property
    def layers(self) -> tuple[str, str]:
        """The third part of each, empty for a root."""
        return _part(self.importer, 2), _part(self.imported, 2)

    @property
    def target(self) -> str:
        """The module that is imported from, by its root."""
        return ".".join(self.imported.split(".")[:2])

    @property
    def crosses(self) -> bool:
        """True if it leads into a module from outside of it."""
        source, target = self.owners
        return source != target and is_module(target)

    @property
    def layers_used_by_services(self) -> bool:
        """True if a service asks a policy or pushes a task of its module."""
        upper, lower = self.layers
        return len(set(self.owners)) == 1 and upper == "services" and lower in USED_BY_SERVICES


Rule = Callable[[Names, Mapping[str, Module]], Fault | None]


def is_module(owner: str) -> bool:
    """True if the name below the package is a module's: neither core nor an entry point."""
    return owner not in ("", CORE, *ENTRY_POINTS)


def is_above(layer: str, other: str) -> bool:
    """True if a layer of modules is one above `other`."""
    return _MODULE_HEIGHT.get(layer, -1) > _MODULE_HEIGHT[other]


def m1_only_public(names: Names, modules: Mapping[str, Module]) -> Fault | None:
    """The root package is a module's API, with what `exposes` names; all else below it is internal."""
    target = modules.get(names.owners[1])
    public = target.public if target else (names.target,)
    if not names.crosses or names.owners[0] == CORE or names.imported in public:
        return None
    return Fault(
        f"{names.importer} imports {names.imported}, which is internal to {names.target}",
        f"import the name from {' or '.join(public)}; where none offers it, the module decides: "
        "by its __init__.py, or by exposes in its manifest",
    )


def m2_only_declared(names: Names, modules: Mapping[str, Module]) -> Fault | None:
    """A module uses no other than those its manifest names."""
    source = modules.get(names.owners[0])
    if source is None or not names.crosses or names.target in source.depends_on:
        return None
    return Fault(
        f"{names.importer} imports {names.target}, which is not in depends_on of {source.name}",
        f'add "{names.target}" to depends_on in {manifest_of(source)}',
    )


def m4_layers_point_down(names: Names, _modules: Mapping[str, Module]) -> Fault | None:
    """Inside a module each layer uses those below it; leaves use no layer; none uses the module's own root.

    One way up is open: a service may ask a policy and push a task, and `used_by_services` keeps these below services.
    """
    owner, other = names.owners
    upper, lower = names.layers
    if owner != other or not is_module(owner) or upper not in (*_MODULE_HEIGHT, *LEAVES):
        return None
    if not lower:
        return Fault(
            f"{names.importer} imports {names.imported}, the root of its own module",
            "import the name from the file that defines it",
        )
    if upper in LEAVES and lower in _MODULE_HEIGHT:
        return Fault(
            f"{names.importer} imports {names.imported}: {upper} is a leaf and uses no layer",
            f"pass in what it needs, or move the code into {lower} or above",
        )
    return None if names.layers_used_by_services else _upward(names, "layer", _MODULE_HEIGHT)


def m4_floors_point_down(names: Names, _modules: Mapping[str, Module]) -> Fault | None:
    """In core each floor uses those below it."""
    return _upward(names, "floor", _CORE_HEIGHT) if names.owners == (CORE, CORE) else None


def _upward(names: Names, what: str, heights: Mapping[str, int]) -> Fault | None:
    upper, lower = names.layers
    if upper not in heights or lower not in heights or heights[upper] >= heights[lower]:
        return None
    return Fault(
        f"{names.importer} imports {names.imported}: {lower} is a {what} above {upper}",
        f"move what both need into {upper} or below, or call it from {lower}",
    )


def m5_core_stands_alone(names: Names, _modules: Mapping[str, Module]) -> Fault | None:
    """Core works without any module, and nothing below the entry points uses them or the registries.

    Nothing uses `tools`, entry points included.
    """
    source, target = names.owners
    if names.imported == TOOLS:
        return Fault(
            f"{names.importer} imports {TOOLS}, which the production image does not have",
            f"move the code to {TOOLS}, or let a command there call it",
        )
    if source == CORE and target not in (CORE, ""):
        return Fault(
            f"{names.importer} imports {names.imported}: core uses nothing above it",
            "turn the arrow round, with an event, a registry or an interface",
        )
    if not is_module(source):
        return None
    if target in ENTRY_POINTS:
        return Fault(
            f"{names.importer} imports {names.imported}, an entry point",
            "move what both need into the module or into core",
        )
    if target == CORE and names.layers[1] in REGISTRIES:
        return Fault(
            f"{names.importer} imports {names.imported}, a registry that loads the modules",
            "import the name from the file that defines it",
        )
    return None


RULES: Sequence[tuple[str, Rule]] = (
    ("M1", m1_only_public),
    ("M2", m2_only_declared),
    ("M4", m4_layers_point_down),
    ("M4", m4_floors_point_down),
    ("M5", m5_core_stands_alone),
)


def crossing_imports(
    imports: Iterable[Import], modules: Mapping[str, Module], exceptions: Exceptions
) -> Iterator[Violation]:
    """M1, M2, M4 and M5: each import against each rule."""
    for found in imports:
        names = Names(found.importer, found.imported)
        for rule, check in RULES:
            if (fault := check(names, modules)) and not exceptions.allow(rule, found.importer, found.imported):
                yield Violation(found.file, found.line, rule, *fault)


def hidden_imports(inside: Iterable[Import], exceptions: Exceptions) -> Iterator[Violation]:
    """M7: an import inside a function hides what a file needs; only entry points put one off, to start at once."""
    for found in inside:
        owner, layer = _part(found.importer, 1), _part(found.importer, 2)
        if owner in ENTRY_POINTS or layer == "cli" or exceptions.allow("M7", found.importer, found.importer):
            continue
        message = f"{found.importer} imports inside a function: {found.imported}"
        yield Violation(found.file, found.line, "M7", message, "import at the top, or turn round what forbids that")


def unseen(package: str, root: Path, seen: Iterable[str], modules: Mapping[str, Module]) -> Iterator[Violation]:
    """Report what no rule could judge: folders that are no module, and files outside of the graph."""
    for owner in sorted({_part(name, 1) for name in seen}):
        if is_module(owner) and owner not in modules:
            name = f"{package}.{owner}"
            yield Violation(
                file_of(name, root),
                1,
                "M2",
                f"{name} is neither core nor an entry point nor a module",
                f"make it a module with {name.replace('.', '/')}/module.toml, or move it into one",
            )
    for folder in (CORE, *modules):
        for path in unseen_files(root / package / folder):
            yield Violation(
                str(path.relative_to(root)),
                1,
                "M1",
                "the file is in no package, so its imports are not seen",
                "add __init__.py to its folder and the folders above",
            )


def _part(name: str, number: int) -> str:
    parts = name.split(".")
    return parts[number] if len(parts) > number else ""
