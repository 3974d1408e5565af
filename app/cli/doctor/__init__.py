"""`kit doctor`."""

import io
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.console import show_json
from app.cli.doctor.findings import Finding, State

_COLORS: dict[State, str | None] = {"ok": "green", "warning": "yellow", "fault": "red", "skipped": None}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False) -> None:
    """Look for what is wrong with installation, settings, application, database, Redis and mail; says how to repair it.

    A fault ends with exit code 1; a warning does not.
    """
    from app.cli.doctor.checks import findings

    with redirect_stdout(io.TextIOWrapper(io.BytesIO())):  # the log: what it would say is found here as well
        found = findings()
    if as_json:
        show_json([asdict(finding) for finding in found])
    else:
        _print(found)
    if any(finding.state == "fault" for finding in found):
        raise typer.Exit(1)


def _print(found: Sequence[Finding]) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        state = typer.style(finding.state.ljust(7), fg=_COLORS[finding.state])
        check = typer.style(finding.check.ljust(width), bold=True)
        typer.echo(f"{state}  {check}  {finding.what}")
        if finding.fix:
            typer.echo(f"{' ' * (width + 11)}Fix: {finding.fix}")
    count = Counter(finding.state for finding in found)
    color = _COLORS["fault" if count["fault"] else "warning" if count["warning"] else "ok"]
    typer.secho(f"\n{_many(count['fault'], 'fault')}, {_many(count['warning'], 'warning')}", fg=color)


def _many(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
