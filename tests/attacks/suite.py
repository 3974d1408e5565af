"""The attacks by name, and running them one after the other."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from tests.attacks import (
    assignment,
    bombs,
    canaries,
    enumeration,
    guessing,
    headers,
    keys,
    objects,
    proxies,
    races,
    roles,
    smuggling,
    tokens,
    twins,
)
from tests.attacks.report import Progress, Report
from tests.attacks.target import Target, Unavailable

Attack = Callable[[Target, Report], Awaitable[None]]
ATTACKS: Mapping[str, Attack] = {
    "tokens": tokens.attack,
    "races": races.attack,
    "enumeration": enumeration.attack,
    "proxies": proxies.attack,
    "guessing": guessing.attack,
    "assignment": assignment.attack,
    "objects": objects.attack,
    "roles": roles.attack,
    "keys": keys.attack,
    "headers": headers.attack,
    "canaries": canaries.attack,
    "twins": twins.attack,
    "bombs": bombs.attack,
    "smuggling": smuggling.attack,
}


async def run(target: Target, names: Iterable[str], progress: Progress | None = None) -> list[Report]:
    """Run these attacks; one that breaks is a failure, and the others go on."""
    reports = []
    for name in names:
        report = Report(name, progress=progress)
        reports.append(report)
        target.begin(report)
        began = time.monotonic()
        try:
            if name == "smuggling" and not target.is_wire:
                raise Unavailable("in process no server reads bytes")
            await ATTACKS[name](target, report)
        except Unavailable as missing:
            report.judge(name, None, missing)
        except Exception as exc:
            report.judge(f"the attack could not go on: {type(exc).__name__}", False, exc)
        report.seconds = time.monotonic() - began
        if progress:
            progress.end(report)
    return reports
