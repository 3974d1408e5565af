"""What the checks of `kit doctor` give."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what to do about it."""

    check: str
    state: State
    what: str
    fix: str = ""


def ok(check: str, what: str) -> Finding:
    """It is as it should be."""
    return Finding(check, "ok", what)


def warning(check: str, what: str, fix: str) -> Finding:
    """It works, and may surprise."""
    return Finding(check, "warning", what, fix)


def fault(check: str, what: str, fix: str) -> Finding:
    """It does not work, or must not be so."""
    return Finding(check, "fault", what, fix)


def skipped(check: str, why: str) -> Finding:
    """It could not be looked at, or there is nothing to look at."""
    return Finding(check, "skipped", why)


def or_ok(check: str, found: Iterable[Finding], what: str) -> list[Finding]:
    """The findings, or one that says that there are none."""
    return list(found) or [ok(check, what)]


def reason(error: BaseException) -> str:
    """The first line of what an error says, of the driver's where it wraps one, without secrets."""
    from app.core.services.log.redaction import clean_text

    cause = getattr(error, "orig", None) or error
    line = next(iter(str(cause).splitlines()), "").strip().rstrip(".")
    return clean_text(line or type(cause).__name__)
