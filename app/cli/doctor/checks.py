"""The checks in their order. Each is on its own: one that breaks is a finding, and the others go on."""

from collections.abc import Callable, Iterable

from app.cli.doctor import application, configuration, installation, services
from app.cli.doctor.findings import Finding, fault, skipped

INSTALLATION = (
    ("python", installation.python),
    ("packages", installation.packages),
    ("lock", installation.lock),
)
CONFIGURED = (
    ("environment", configuration.environment),
    ("data folder", configuration.data_folder),
    ("application", application.application),
    ("database", services.database),
    ("clock", services.clock),
    ("migrations", services.migrations),
    ("jobs", services.jobs),
    ("redis", services.redis),
    ("mail", services.mail),
)


def findings() -> list[Finding]:
    """What every check finds. Without readable settings only the installation can be looked at."""
    found = [finding for name, check in INSTALLATION for finding in _isolated(name, check)]
    found += _isolated("settings", configuration.settings)
    if not configuration.are_readable():
        return [*found, *(skipped(name, "needs settings that can be read") for name, _ in CONFIGURED)]
    return found + [finding for name, check in CONFIGURED for finding in _isolated(name, check)]


def _isolated(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as exc:
        # The text may hold what was configured; which kind of error it was is enough to look further.
        return [fault(name, f"could not be looked at: {type(exc).__name__}", "look at the other faults first")]
