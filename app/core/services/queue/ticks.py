"""When a scheduled task runs: the moments of a cron line or an interval."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CATCHES_UP = ", what was missed once"


@dataclass(frozen=True)
class Cron:
    """A cron line of five fields, read on the clock of a time zone.

    A time that the change to summer time skips is made up for at once, one that comes twice counts the first time.
    A line whose minute or hour begins with `*` is read minute by minute instead, as by Debian's cron.
    `catch_up`: what was missed while no scheduler ran is run once, as soon as one does.
    """

    line: str
    tz: str = "UTC"
    catch_up: bool = False

    def __str__(self) -> str:
        return f"{self.line} {self.tz}{_CATCHES_UP if self.catch_up else ''}"

    def next_after(self, moment: datetime) -> datetime:
        """The first tick after `moment`; a ValueError says what is wrong with the line or the zone."""
        if len(self.line.split()) != 5:
            raise ValueError("a cron line has five fields")
        try:
            ticks = CronSim(self.line, moment.astimezone(_zone(self.tz)))
            # On the second turn of a repeated hour CronSim begins with the first.
            following = next((tick for each in ticks if (tick := each.astimezone(UTC)) > moment), None)
        except CronSimError as exc:
            raise ValueError(str(exc)) from exc
        if following is None:
            raise ValueError("this never comes")
        return following


@dataclass(frozen=True)
class Every:
    """An interval of whole seconds, counted from 1970 in UTC, so that all schedulers agree.

    `catch_up`: what was missed while no scheduler ran is run once, as soon as one does.
    """

    interval: timedelta
    catch_up: bool = False

    def __str__(self) -> str:
        return f"every {self.interval}{_CATCHES_UP if self.catch_up else ''}"

    def next_after(self, moment: datetime) -> datetime:
        """The first tick after `moment`; a ValueError says what is wrong with the interval."""
        if self.interval < timedelta(seconds=1) or self.interval.microseconds:
            raise ValueError("an interval is whole seconds, at least one")
        try:
            return _EPOCH + ((moment - _EPOCH) // self.interval + 1) * self.interval
        except OverflowError as exc:
            raise ValueError("this never comes") from exc


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"there is no time zone {name!r}") from exc


Schedule: TypeAlias = Cron | Every


def schedule_of(declared: str | timedelta | Schedule) -> Schedule:
    """What `__schedule__` declares; a cron line or an interval alone is in UTC and skips what was missed."""
    if isinstance(declared, Cron | Every):
        return declared
    return Cron(declared) if isinstance(declared, str) else Every(declared)
