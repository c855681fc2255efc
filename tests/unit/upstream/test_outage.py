"""Announcements of outages: one at the beginning, one at the end, and few for something that flaps."""

from mirror.upstream.outage import QUIET, Outage


def test_outage_is_announced_once() -> None:
    """However many failures follow the first."""
    outage = Outage()
    assert [outage.failed(now) for now in (0.0, 1.0, QUIET, 9 * QUIET)] == [1, None, None, None]
    assert outage.active


def test_outage_end_is_announced_once_with_its_length() -> None:
    """Successes before and after an outage are no news."""
    outage = Outage()
    assert outage.ended(0.0) is None
    outage.failed(10.0)
    outage.failed(20.0)
    assert (outage.ended(70.0), outage.ended(71.0), outage.active) == (60.0, None, False)


def test_outage_that_flaps_is_announced_once_in_a_quiet_time() -> None:
    """Neither the beginning nor the end of the outages in between is announced."""
    outage = Outage()
    lines = []
    for second in range(int(2 * QUIET) + 2):
        lines += [(second, outage.failed(float(second)), outage.ended(second + 0.5))]
    told = [line for line in lines if line[1:] != (None, None)]
    assert told == [(0, 1, 0.5), (QUIET, QUIET, 0.5), (2 * QUIET, QUIET, 0.5)]


def test_outage_soon_after_another_is_announced_when_it_lasts() -> None:
    """The log does not end with "works again" while nothing works."""
    outage = Outage()
    outage.failed(0.0)
    outage.ended(1.0)
    assert [outage.failed(now) for now in (2.0, QUIET - 1, QUIET, QUIET + 1)] == [None, None, 1, None]
    assert outage.ended(QUIET + 2) == QUIET
