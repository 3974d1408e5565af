"""`kit doctor`: its checks in their order. Each is on its own: one that breaks is a finding, and the others go on."""

import io
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from importlib import import_module
from typing import Annotated, NamedTuple

import typer

from app.cli.console import show_json
from app.cli.doctor.findings import Finding, State, fault, ok, skipped
from app.cli.doctor.installation import unreadable_settings

_COLORS: dict[State, str | None] = {"ok": "green", "warning": "yellow", "fault": "red", "skipped": None}


class Check(NamedTuple):
    """A function below this package that yields findings; where it yields none, `sound` is said.

    It is called by name: a file that cannot be imported, for a missing package, is a finding too.
    """

    name: str
    function: str
    sound: str = ""
    needs: str = ""


INSTALLATION = (
    Check("python", "installation.python"),
    Check("packages", "installation.packages", "the pinned versions are installed"),
    Check("lock", "installation.lock", "poetry.lock and requirements are what is declared"),
    Check("server", "installation.server"),
)
SETTINGS = Check("settings", "configuration.settings")
CONFIGURED = (
    Check("environment", "configuration.environment", "every key is a setting that counts"),
    Check("data folder", "configuration.data_folder"),
    Check("application", "configuration.application", "every route can be reached"),
    Check("database", "services.database"),
    Check("clock", "services.clock", needs="database"),
    Check("migrations", "services.migrations", "the database is up to date", needs="database"),
    Check("jobs", "services.jobs", "none dead, none overdue", needs="database"),
    Check("redis", "services.redis"),
    Check("mail", "services.mail"),
)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False) -> None:
    """Look for what is wrong with installation, settings, application, database, Redis and mail; says how to repair it.

    A fault ends with exit code 1; a warning does not.
    """
    with redirect_stdout(io.TextIOWrapper(io.BytesIO())):  # the log: what it would say is found here as well
        found = findings()
    if as_json:
        show_json([asdict(finding) for finding in found])
    else:
        _print(found)
    if any(finding.state == "fault" for finding in found):
        raise typer.Exit(1)


def findings() -> list[Finding]:
    """Run every check. Without readable settings only the installation can be checked."""
    found = [finding for check in INSTALLATION for finding in _run(check)]
    if faults := unreadable_settings():
        found += [replace(one, check=SETTINGS.name) for one in faults]
        return found + [skipped("needs settings that can be read", check=check.name) for check in CONFIGURED]
    failed = set()
    for check in (SETTINGS, *CONFIGURED):
        if check.needs in failed:
            found.append(skipped(f"needs the {check.needs}", check=check.name))
            continue
        found += _run(check)
        if found[-1].state == "fault":
            failed.add(check.name)
    return found


def _run(check: Check) -> list[Finding]:
    module, _, name = check.function.partition(".")
    try:
        found = list(getattr(import_module(f"{__name__}.{module}"), name)())
    except Exception as exc:
        # The text may hold what was configured; which kind of error it was is enough to look further.
        found = [fault(f"could not be checked: {type(exc).__name__}", "look at the other faults first")]
    if not found and check.sound:
        found = [ok(check.sound)]
    return [replace(one, check=check.name) for one in found]


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
