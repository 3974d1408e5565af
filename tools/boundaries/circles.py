"""Rules that need all imports at once: circles (M3, M8), and files that services use (M4)."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from app.core.modules import Module
from tools.boundaries.imports import Import
from tools.boundaries.rules import USED_BY_SERVICES, Names, is_above, is_module
from tools.boundaries.violations import Exceptions, Violation, manifest_line, manifest_of

Place = tuple[str, int]
Arrows = dict[str, dict[str, Place]]
"""From each name to each it uses, with the first place that says so."""


def module_circles(
    imports: Iterable[Import], modules: Mapping[str, Module], exceptions: Exceptions
) -> Iterator[Violation]:
    """M3: no module uses one that uses it, by import or by `depends_on`, however long the way round."""
    arrows: Arrows = {}
    for found in imports:
        names = Names(found.importer, found.imported)
        source = modules.get(names.owners[0])
        if source and names.crosses:
            arrows.setdefault(source.name, {}).setdefault(names.target, (found.file, found.line))
    for module in modules.values():
        for other in module.depends_on:
            place = (manifest_of(module), manifest_line(module))
            arrows.setdefault(module.name, {}).setdefault(other, place)
    fix = "turn one arrow round with an event, or move what both need into one of them"
    yield from _circles("M3", "modules use each other", arrows, fix, exceptions)


def sibling_circles(imports: Iterable[Import], exceptions: Exceptions) -> Iterator[Violation]:
    """M8: of the files and folders beside each other none imports one that imports it, however long the way round."""
    levels: dict[str, Arrows] = {}
    for found in imports:
        source, target = found.importer.split("."), found.imported.split(".")
        depth = next((n for n, (a, b) in enumerate(zip(source, target, strict=False)) if a != b), None)
        depth = min(len(source), len(target)) if depth is None else depth  # one is the root of the other's folder
        names = Names(found.importer, found.imported)
        if (
            depth == 0
            or source == target
            or (depth == 1 and any(map(is_module, names.owners)))
            or names.layers_used_by_services
        ):
            continue  # what `tools` is, modules and the layers that services may use have rules of their own
        siblings = (".".join(source[: depth + 1]), ".".join(target[: depth + 1]))
        arrows = levels.setdefault(".".join(source[:depth]), {})
        arrows.setdefault(siblings[0], {}).setdefault(siblings[1], (found.file, found.line))
    fix = "move what both need into a file of its own, or pass it in"
    for arrows in levels.values():
        yield from _circles("M8", "files or folders import each other", arrows, fix, exceptions)


def _circles(rule: str, what: str, arrows: Arrows, fix: str, exceptions: Exceptions) -> Iterator[Violation]:
    reported: set[frozenset[str]] = set()
    for name in sorted(arrows):
        while way := _way_back(name, arrows):
            circle = list(pairwise([*way, name]))
            if allowed := [arrow for arrow in circle if exceptions.allow(rule, *arrow)]:
                for source, target in allowed:
                    del arrows[source][target]
                continue
            if frozenset(way) not in reported:
                reported.add(frozenset(way))
                place, *others = [arrows[source][target] for source, target in circle]
                back = ", ".join(f"{file}:{line}" for file, line in others)
                message = f"{what} in a circle: {' > '.join([*way, name])}"
                yield Violation(*place, rule, message + (f" (the other way at {back})" if back else ""), fix)
            break


def _way_back(start: str, arrows: Arrows) -> list[str] | None:
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


def used_by_services(imports: Iterable[Import], exceptions: Exceptions) -> Iterator[Violation]:
    """M4 for a policy that a service asks, a task it pushes, and those that these use: nothing from services up."""
    inside = [
        (found, names)
        for found in imports
        if is_module((names := Names(found.importer, found.imported)).owners[0]) and len(set(names.owners)) == 1
    ]
    used: set[str] = set()
    before = -1
    while len(used) > before:
        before = len(used)
        for _, names in inside:
            layer = names.layers[1]
            if names.layers_used_by_services or (names.importer in used and layer in USED_BY_SERVICES):
                used |= {names.imported, f"{names.target}.{layer}"}  # importing a file runs its package, too
    for found, names in inside:
        own, layer = names.layers
        if names.importer not in used or layer in USED_BY_SERVICES or not is_above(layer, "emails"):
            continue
        if not exceptions.allow("M4", names.importer, names.imported):
            yield Violation(
                found.file,
                found.line,
                "M4",
                f"{names.importer} imports {names.imported}: services {USED_BY_SERVICES[own]}, and {layer} is not "
                "below them",
                "have it take what it needs as an argument, or use a repository",
            )
