"""Rules that need all imports at once: modules in a circle (M3), and policies that services ask (M4)."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from app.core.modules import Module
from tools.boundaries.imports import Import
from tools.boundaries.rules import LAYERS, Names, is_module
from tools.boundaries.violations import Exceptions, Violation, manifest_line, manifest_of

Place = tuple[str, int]


def circles(imports: Iterable[Import], modules: Mapping[str, Module], exceptions: Exceptions) -> Iterator[Violation]:
    """M3: no module uses one that uses it, by import or by `depends_on`, however long the way round."""
    arrows = _arrows(imports, modules)
    reported: set[frozenset[str]] = set()
    for name in sorted(arrows):
        while way := _way_back(name, arrows):
            circle = list(pairwise([*way, name]))
            if allowed := [arrow for arrow in circle if exceptions.allow("M3", *arrow)]:
                for source, target in allowed:
                    del arrows[source][target]
                continue
            if frozenset(way) not in reported:
                reported.add(frozenset(way))
                yield _circle([arrows[source][target] for source, target in circle], [*way, name])
            break


def _arrows(imports: Iterable[Import], modules: Mapping[str, Module]) -> dict[str, dict[str, Place]]:
    """From each module to each it uses, with the first place that says so."""
    arrows: dict[str, dict[str, Place]] = {module.name: {} for module in modules.values()}
    for found in imports:
        names = Names(found.importer, found.imported)
        source = modules.get(names.owners[0])
        if source and names.crosses:
            arrows[source.name].setdefault(names.target, (found.file, found.line))
    for module in modules.values():
        for other in module.depends_on:
            arrows[module.name].setdefault(other, (manifest_of(module), manifest_line(module)))
    return arrows


def _circle(places: list[Place], way: list[str]) -> Violation:
    others = ", ".join(f"{file}:{line}" for file, line in places[1:])
    return Violation(
        *places[0],
        "M3",
        f"modules use each other in a circle: {' > '.join(way)}" + (f" (the other way at {others})" if others else ""),
        "turn one arrow round with an event, or move what both need into one of them",
    )


def _way_back(start: str, arrows: Mapping[str, Mapping[str, object]]) -> list[str] | None:
    """The shortest way from `start` to itself."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:  # grows while it is walked: breadth first
        for other in sorted(arrows.get(way[-1], ())):
            if other == start:
                return way
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return None


def asked_policies(imports: Iterable[Import], exceptions: Exceptions) -> Iterator[Violation]:
    """M4 for a policy that a service asks, by way of other policies too: it may use nothing from services up."""
    inside = [
        (found, names)
        for found in imports
        if is_module((names := Names(found.importer, found.imported)).owners[0]) and len(set(names.owners)) == 1
    ]
    asked: set[str] = set()
    before = -1
    while len(asked) > before:
        before = len(asked)
        for _, names in inside:
            if names.layers == ("services", "policies") or (names.importer in asked and names.layers[1] == "policies"):
                asked |= {names.imported, f"{names.target}.policies"}  # importing a file runs its package, too
    above = [layer for layer in LAYERS[: LAYERS.index("services") + 1] if layer != "policies"]
    for found, names in inside:
        layer = names.layers[1]
        if names.importer not in asked or layer not in above or exceptions.allow("M4", names.importer, names.imported):
            continue
        yield Violation(
            found.file,
            found.line,
            "M4",
            f"{names.importer} imports {names.imported}: services ask this policy, and {layer} is not below them",
            "have the policy take what it needs as an argument, or use a repository",
        )
