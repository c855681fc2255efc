"""Schedules with a time zone."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from mirror.config.cron import Schedule

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def test_schedule_has_moments_in_its_zone() -> None:
    """The last moment may be now; the next one is later."""
    schedule = Schedule.parse("30 3 * * * Europe/Berlin")
    now = at("2026-06-10 03:30:00")
    assert schedule.last_until(now) == now
    assert schedule.last_until(now + 59) == now
    assert schedule.last_until(now - 1) == at("2026-06-09 03:30:00")
    assert schedule.next_after(now) == at("2026-06-11 03:30:00")
    assert schedule.next_after(now - 1) == now
    assert Schedule.parse("30 1 * * * UTC").last_until(now) == now


def test_schedule_over_changes_of_the_clock() -> None:
    """An hour that does not exist is made up after the change; one that comes twice is used once."""
    daily = Schedule.parse("30 2 * * * Europe/Berlin")
    spring, autumn = at("2026-03-28 12:00:00"), at("2026-10-24 12:00:00")
    assert daily.next_after(spring) == at("2026-03-29 03:00:00")
    first = daily.next_after(autumn)
    assert daily.next_after(first) - first > 20 * 3600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "five fields and a time zone"),
        ("30 3 * * *", "five fields and a time zone"),
        ("30 3 * * * Mars/Base", "'Mars/Base' is not a time zone"),
        ("30 3 * * * ../../etc/passwd", "is not a time zone"),
        ("61 3 * * * UTC", "five fields"),
        ("0 0 30 2 * UTC", "five fields"),
        ("* * * * * * UTC", "five fields"),
    ],
)
def test_schedule_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule.parse(text)
