"""The moments of cron lines and intervals."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from app.core.services.queue import Cron, Every
from app.core.services.queue.interface import Schedule


def ticks(schedule: Schedule, start: str, end: str) -> list[datetime]:
    """Every tick after `start`, up to `end`."""
    moment, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    found = []
    while (moment := schedule.next_after(moment)) <= last:
        found.append(moment)
    return found


def written(moments: list[datetime]) -> list[str]:
    return [f"{moment:%d %H:%M}" for moment in moments]


class TestCron:
    def test_follows_the_clock_of_its_zone(self) -> None:
        berlin = Cron("0 3 * * *", tz="Europe/Berlin")
        assert written(ticks(berlin, "2026-01-01T00:00Z", "2026-01-03T00:00Z")) == ["01 02:00", "02 02:00"]
        assert written(ticks(berlin, "2026-07-01T00:00Z", "2026-07-03T00:00Z")) == ["01 01:00", "02 01:00"]
        assert berlin.next_after(datetime(2026, 1, 1, 2, tzinfo=UTC)) == datetime(2026, 1, 2, 2, tzinfo=UTC)

    def test_a_skipped_time_is_made_up_for_at_once(self) -> None:
        found = ticks(Cron("30 2 * * *", tz="Europe/Berlin"), "2026-03-28T00:00Z", "2026-03-31T00:00Z")
        assert written(found) == ["28 01:30", "29 01:00", "30 00:30"]

    def test_a_time_that_comes_twice_counts_once(self) -> None:
        found = ticks(Cron("30 2 * * *", tz="Europe/Berlin"), "2026-10-24T00:00Z", "2026-10-27T00:00Z")
        assert written(found) == ["24 00:30", "25 00:30", "26 01:30"]

    def test_a_line_that_begins_with_a_star_is_read_minute_by_minute(self) -> None:
        hourly = Cron("0 * * * *", tz="Europe/Berlin")
        for day in ("2026-03-29", "2026-10-25"):
            found = ticks(hourly, f"{day}T00:00Z", f"{day}T06:00Z")
            assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}

    @pytest.mark.parametrize("line", ["30 2 * * *", "15 1-3 * * *", "0 * * * *", "*/20 2 * * *", "0 3 * * SUN"])
    @pytest.mark.parametrize("start", ["2026-03-28T20:00Z", "2026-10-24T20:00Z", "2026-06-06T20:00Z"])
    def test_whoever_asks_when_gets_the_same_ticks(self, line: str, start: str) -> None:
        cron = Cron(line, tz="Europe/Berlin")
        moment = datetime.fromisoformat(start)
        end = moment + timedelta(hours=10)
        expected = ticks(cron, start, (end + timedelta(days=8)).isoformat())
        while moment < end:
            assert cron.next_after(moment) == next(tick for tick in expected if tick > moment)
            moment += timedelta(minutes=7, seconds=30)

    @pytest.mark.parametrize(
        ("cron", "reason"),
        [
            (Cron("* * * *"), "five fields"),
            (Cron("0 0 0 * * *"), "five fields"),
            (Cron("61 * * * *"), "Bad minute"),
            (Cron("0 0 * * XYZ"), "Bad day-of-week"),
            (Cron("0 0 30 2 *"), "Bad day-of-month"),
            (Cron("0 0 * * *", tz="Europe/Atlantis"), "no time zone 'Europe/Atlantis'"),
            (Cron("0 0 * * *", tz="../etc/passwd"), "time zone"),
            (Cron("0 0 * * *", tz="Europe"), "no time zone 'Europe'"),
            (Cron("0 0 * * *", tz=""), "time zone"),
        ],
    )
    def test_what_is_wrong_is_said(self, cron: Cron, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            cron.next_after(datetime(2026, 1, 1, tzinfo=UTC))


class TestEvery:
    def test_is_counted_from_the_same_moment_by_all(self) -> None:
        found = ticks(Every(timedelta(minutes=20)), "2026-01-01T00:07:03Z", "2026-01-01T01:00Z")
        assert written(found) == ["01 00:20", "01 00:40", "01 01:00"]

    @pytest.mark.parametrize("interval", [timedelta(0), timedelta(seconds=-5), timedelta(seconds=1.5), timedelta.max])
    def test_what_is_wrong_is_said(self, interval: timedelta) -> None:
        with pytest.raises(ValueError, match=r"whole seconds|never"):
            Every(interval).next_after(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (Cron("0 3 * * *", tz="Europe/Berlin"), "0 3 * * * Europe/Berlin"),
        (Cron("0 3 * * *", catch_up=True), "0 3 * * * UTC, what was missed once"),
        (Every(timedelta(minutes=10)), "every 0:10:00"),
    ],
)
def test_they_read_as_people_write_them(schedule: Cron | Every, said: str) -> None:
    assert str(schedule) == said
