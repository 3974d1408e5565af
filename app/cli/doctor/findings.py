"""The result of a check of `kit doctor`."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One thing that was examined, and how to repair it.

    `warning` is what works and may surprise, `skipped` what could not be examined or is not used.
    """

    state: State
    what: str
    fix: str = ""
    check: str = ""


ok = partial(Finding, "ok")
warning = partial(Finding, "warning")
fault = partial(Finding, "fault")
skipped = partial(Finding, "skipped")


def reason(error: BaseException) -> str:
    """The first line of an error, of the driver's where it wraps one, without secrets."""
    from app.core.services.log.redaction import clean_text

    cause = getattr(error, "orig", None) or error
    line = next(iter(str(cause).splitlines()), "").strip().rstrip(".")
    return clean_text(line or type(cause).__name__)
