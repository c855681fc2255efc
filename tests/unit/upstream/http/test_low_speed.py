"""Low-speed limit: a drip is told from a slow line."""

import pytest

from mirror.upstream.http.low_speed import MIN_SPEED, LowSpeedLimit, made_progress


def all_allowed(pieces: list[tuple[int, float]], seconds: float = 30.0) -> bool:
    """Return True if all pieces, each after its seconds of waiting, are fast all_allowed."""
    limit = LowSpeedLimit(seconds)
    return all(limit.allows(*piece) for piece in pieces)


@pytest.mark.parametrize("connections", [1, 8, 19])
def test_low_speed_limit_allows_a_share_of_20_kilobytes_a_second(connections: int) -> None:
    """Up to some twenty connections share such a line, in packets and with pauses."""
    speed = 20_000 / connections
    assert all_allowed([(1400, 1400 / speed)] * 1000)
    assert all_allowed([(14_000, 14_000 / speed), (1400, 0.0)] * 100)


def test_low_speed_limit_ends_a_drip() -> None:
    """A drip ends after the time of the limit, from the beginning or after many bytes."""
    assert all_allowed([(1, 1.0)] * 30)
    assert not all_allowed([(1, 1.0)] * 31)
    assert not all_allowed([(10**9, 1.0), *[(100, 1.0)] * 31])


def test_low_speed_limit_ignores_slow_readers() -> None:
    """A reader that reads slowly does not make the source slow."""
    assert all_allowed([(1, 0.0)] * 10_000)


def test_made_progress_by_bytes_and_seconds() -> None:
    """A cut after megabytes is free, a cut after a few bytes is not, nor are many seconds for little."""
    assert made_progress(10**6, 5.0)
    assert made_progress(MIN_SPEED, 0.001)
    assert not made_progress(9, 0.001)
    assert not made_progress(MIN_SPEED, 30.0)
