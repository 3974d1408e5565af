"""Breaches that a check of the boundaries finds, and those that manifests allow."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.core.modules import BoundaryException, Module
from app.core.modules.manifest import MANIFEST


@dataclass(frozen=True, order=True)
class Violation:
    """A place that crosses a boundary, the rule that says so, and what to do instead."""

    file: str
    line: int
    rule: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule} {self.message}. Fix: {self.fix}."


class Exceptions:
    """The deliberate breaches that the manifests list, and which of them were met."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self._listed = [(module, exception) for module in modules for exception in module.manifest.exceptions]
        self._met: set[tuple[Module, BoundaryException]] = set()

    def allow(self, rule: str, source: str, target: str) -> bool:
        """True if the manifest of the module that `source` belongs to lists that it may use `target`."""
        for module, exception in self._listed:
            if (
                exception.rule == rule
                and _within(source, module.name)
                and _within(source, exception.source)
                and _within(target, exception.target)
            ):
                self._met.add((module, exception))
                return True
        return False

    def unused(self) -> Iterator[Violation]:
        """A violation for each exception that excused nothing."""
        for module, exception in self._listed:
            if (module, exception) not in self._met:
                number = module.manifest.exceptions.index(exception)
                yield Violation(
                    manifest_of(module),
                    _lines_of(module, r"\s*\[\[\s*exceptions\s*\]\]", [1] * (number + 1))[number],
                    exception.rule,
                    f"the exception from {exception.source} to {exception.target} excuses nothing",
                    "remove it, or correct its rule, from and to",
                )


def manifest_of(module: Module) -> str:
    """The manifest's path, as violations show files."""
    return f"{module.name.replace('.', '/')}/{MANIFEST}"


def manifest_line(module: Module) -> int:
    """The line of `depends_on` in the manifest."""
    return _lines_of(module, r"\s*depends_on\b", [1])[0]


def _within(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def _lines_of(module: Module, pattern: str, otherwise: list[int]) -> list[int]:
    lines = (module.path / MANIFEST).read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if re.match(pattern, line)] or otherwise
