"""Progress: what drips is told from what is slow."""

import pytest

from mirror.upstream.http.low_speed import MIN_SPEED, LowSpeedLimit, made_progress


def enough(pieces: list[tuple[int, float]], seconds: float = 30.0) -> bool:
    """Whether all of these pieces, each after so many seconds of waiting, came fast enough."""
    progress = LowSpeedLimit(seconds)
    return all(progress.allows(*piece) for piece in pieces)


@pytest.mark.parametrize("lanes", [1, 8, 19])
def test_a_line_of_20_kilobytes_a_second_is_served(lanes: int) -> None:
    """However many connections share it, up to some twenty; in packets, and with pauses."""
    speed = 20_000 / lanes
    assert enough([(1400, 1400 / speed)] * 1000)
    assert enough([(14_000, 14_000 / speed), (1400, 0.0)] * 100)


def test_a_drip_is_not() -> None:
    """Whether from the beginning or after much has come, once it has had its time."""
    assert enough([(1, 1.0)] * 30)
    assert not enough([(1, 1.0)] * 31)
    assert not enough([(10**9, 1.0), *[(100, 1.0)] * 31])


def test_what_is_not_waited_for_does_not_count() -> None:
    """Whoever reads slowly does not make the source slow."""
    assert enough([(1, 0.0)] * 10_000)


def test_an_attempt_counts_by_what_it_brought() -> None:
    """A cut after megabytes is free, a cut after a few bytes is not, nor are many seconds for little."""
    assert made_progress(10**6, 5.0)
    assert made_progress(MIN_SPEED, 0.001)
    assert not made_progress(9, 0.001)
    assert not made_progress(MIN_SPEED, 30.0)
