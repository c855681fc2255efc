"""The throttle of log lines."""

from mirror.util.throttle import Throttle


def test_throttle_passes_one_and_counts_the_others() -> None:
    """The number says how often it happened since the last line."""
    now = 100.0
    throttle = Throttle(60.0, clock=lambda: now)
    assert [throttle.count() for _ in range(3)] == [1, 0, 0]
    now = 160.0
    assert [throttle.count() for _ in range(2)] == [3, 0]
