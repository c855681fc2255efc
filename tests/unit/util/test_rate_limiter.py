"""A pace that is kept."""

from mirror.util.rate_limiter import RateLimiter


def test_no_faster_than_the_rate() -> None:
    """Over any stretch; what was slow by itself is not paused for, nor caught up with."""
    now = [100.0]
    pace = RateLimiter(1000, lambda: now[0])
    assert pace.pause(500) == 0.5
    now[0] += 0.5
    assert pace.pause(1000) == 1.0
    now[0] += 50.0
    assert pace.pause(500) == 0.0
    assert pace.pause(1500) == 1.0


def test_no_rate_is_no_limit() -> None:
    """Not a pause at all."""
    assert RateLimiter(0).pause(10**12) == 0.0
