"""The rate limiter of background work."""

from mirror.util.rate_limiter import RateLimiter


def test_rate_limiter_keeps_the_rate() -> None:
    """The pauses keep the rate over any stretch; slow work is neither paused for nor caught up with."""
    now = [100.0]
    limiter = RateLimiter(1000, lambda: now[0])
    assert limiter.pause(500) == 0.5
    now[0] += 0.5
    assert limiter.pause(1000) == 1.0
    now[0] += 50.0
    assert limiter.pause(500) == 0.0
    assert limiter.pause(1500) == 1.0


def test_rate_limiter_without_a_rate_never_pauses() -> None:
    """A rate of 0 means no limit."""
    assert RateLimiter(0).pause(10**12) == 0.0
