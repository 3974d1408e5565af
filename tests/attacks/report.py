"""What an attack has tried and what became of it, and the table of them all."""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_COLUMNS = ("attack", "tried", "held", "failed", "not judged", "seconds")


@dataclass
class Report:
    """The cases of one attack. A case that could not be judged is no success: it is listed as such."""

    attack: str
    tried: int = 0
    held: int = 0
    failed: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    progress: "Progress | None" = None

    def judge(self, case: str, held: bool | None, why: object = "") -> None:
        """Count one case; `held` is None where nothing can be said. `why` is shown unless it held."""
        self.tried += 1
        told = f"{case}: {why}" if why != "" else case
        if held:
            self.held += 1
        elif held is None:
            self.unjudged.append(told)
        else:
            self.failed.append(told)
        if self.progress:
            self.progress.show(self)

    def note(self, text: str) -> None:
        """Something to know that is no failure; said once."""
        if text not in self.notes:
            self.notes.append(text)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        numbers = {"attack": self.attack, "tried": self.tried, "held": self.held, "seconds": round(self.seconds, 1)}
        return numbers | {"failed": self.failed, "not_judged": self.unjudged, "notes": self.notes}


class Progress:
    """Says how far an attack is: a line that renews itself on a terminal, a line for each attack in a pipe."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.label = ""
        self._terminal = sys.stderr.isatty()
        self._said = 0.0

    def show(self, report: Report) -> None:
        """Renew the line, at most ten times a second."""
        if self._terminal and not self.silent and time.monotonic() > self._said + 0.1:
            self._said = time.monotonic()
            self._write(f"\r\033[K  {self._text(report)}")

    def wait(self, report: Report, seconds: float) -> None:
        """Say that it waits for a limit, on a terminal."""
        if self._terminal and not self.silent:
            self._write(f"\r\033[K  {self._text(report)}, waits {seconds:.0f} s for a limit")

    def end(self, report: Report) -> None:
        """Say what came of it."""
        if not self.silent:
            self._write(("\r\033[K  " if self._terminal else "  ") + f"{self._text(report)}, {report.seconds:.1f} s\n")

    def _text(self, report: Report) -> str:
        return f"{self.label}{report.attack}: {report.tried} tried, {len(report.failed)} failed"

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def table(reports: Iterable[Report]) -> str:
    """The table, with every failure named below it."""
    reports = list(reports)
    rows = [_COLUMNS, *(_row(one) for one in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(_aligned(cell, width, number) for number, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    for title, name in (("Failed", "failed"), ("Not judged", "unjudged"), ("Notes", "notes")):
        told = [f"  {one.attack}: {text}" for one in reports for text in _shown(getattr(one, name), title)]
        lines += ["", f"{title}:", *told] if told else []
    return "\n".join(lines)


def _shown(texts: list[str], title: str) -> list[str]:
    """Every failure, but no more than ten of the rest."""
    if title == "Failed" or len(texts) <= 10:
        return texts
    return [*texts[:10], f"and {len(texts) - 10} more"]


def _row(one: Report) -> tuple[str, ...]:
    counts = (one.tried, one.held, len(one.failed), len(one.unjudged))
    return (one.attack, *map(str, counts), f"{one.seconds:.1f}")


def _aligned(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column else text.ljust(width)


def as_json(runs: dict[str, list[Report]]) -> str:
    """The same for programs."""
    return json.dumps({name: [one.as_dict() for one in reports] for name, reports in runs.items()}, indent=2)
