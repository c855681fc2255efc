"""Health of a source: measurements, and when its breaker opens and closes."""

import pytest

from mirror.upstream.health import (
    CORRUPT_FOR,
    FAILURES,
    FIRST_PAUSE,
    JITTER,
    LONGEST_PAUSE,
    BreakerState,
    SourceHealth,
)


def failing(times: int, now: float = 0.0) -> SourceHealth:
    """Return the health of a source after `times` failures at `now`."""
    health = SourceHealth()
    for _ in range(times):
        health.record_failure(now)
    return health


def test_breaker_opens_after_failures_in_a_row() -> None:
    """One failure is an accident; after some in a row the source is not used for a while."""
    assert failing(FAILURES - 1).state(0.0) is BreakerState.CLOSED
    broken = failing(FAILURES)
    assert (broken.state(0.0), broken.usable(0.0)) == (BreakerState.OPEN, False)


def test_breaker_half_open_lets_one_request_through() -> None:
    """A failed probe opens the breaker for twice as long, a successful one closes it."""
    health = failing(FAILURES)
    now = FIRST_PAUSE
    assert (health.state(now), health.usable(now)) == (BreakerState.HALF_OPEN, True)
    health.record_request(now)
    assert not health.usable(now)
    health.record_failure(now)
    assert not health.usable(now + FIRST_PAUSE)
    now += 2 * FIRST_PAUSE
    assert health.usable(now)
    health.record_request(now)
    health.record_success(0.1)
    assert health.state(now) is BreakerState.CLOSED


def test_breaker_pause_is_bounded() -> None:
    """The pause is never longer than LONGEST_PAUSE, after any number of failures."""
    health, now = SourceHealth(), 0.0
    for _ in range(FAILURES + 20):
        health.record_failure(now)
        while health.breaker(now) is BreakerState.OPEN:
            now += 0.5
    health.record_failure(now)
    assert health.state(now + LONGEST_PAUSE / 2) is BreakerState.OPEN
    assert health.state(now + LONGEST_PAUSE) is BreakerState.HALF_OPEN


def test_breaker_pause_has_jitter() -> None:
    """The pause is shortened by a random share, and never by much."""
    health = SourceHealth(lambda: 0.5)
    health.record_failure(0.0, FAILURES)
    early = FIRST_PAUSE * (1 - JITTER / 2)
    assert (health.state(early - 0.01), health.state(early)) == (BreakerState.OPEN, BreakerState.HALF_OPEN)


def test_breaker_opens_once_for_failures_at_the_same_time() -> None:
    """A dozen requests that fail together keep the breaker open no longer than one."""
    assert failing(12).state(FIRST_PAUSE) is BreakerState.HALF_OPEN


def test_breaker_counts_failures_in_a_row_only() -> None:
    """A success resets the count."""
    health = failing(FAILURES - 1)
    health.record_success(0.1)
    health.record_failure(0.0)
    assert health.state(0.0) is BreakerState.CLOSED


def test_corruption_stops_use_for_a_while() -> None:
    """One report is enough, and a success changes nothing."""
    health = SourceHealth()
    health.report_corruption(0.0)
    health.record_success(0.1)
    assert not health.usable(CORRUPT_FOR - 1)
    assert health.usable(CORRUPT_FOR)


def test_suspicion_that_is_cleared_ends_at_once() -> None:
    """A source under suspicion is used again when cleared, unless it sent wrong bytes itself."""
    health = SourceHealth()
    health.suspect(0.0)
    assert not health.usable(CORRUPT_FOR - 1)
    health.clear_suspicion()
    assert health.state(0.0) is BreakerState.CLOSED
    health.report_corruption(0.0)
    health.suspect(0.0)
    health.clear_suspicion()
    assert health.state(0.0) is BreakerState.OPEN


def test_health_averages() -> None:
    """The first measurement counts whole, later ones in part; an empty transfer teaches nothing."""
    health = SourceHealth()
    health.record_success(1.0)
    health.record_transfer(100, 1.0)
    assert (health.latency, health.speed) == (1.0, 100.0)
    health.record_success(2.0)
    health.record_transfer(200, 1.0)
    health.record_transfer(0, 1.0)
    assert health.latency == pytest.approx(1.3)
    assert health.speed == pytest.approx(130.0)


def test_hedge_delay_is_the_ninetieth_percentile() -> None:
    """The percentile counts once there are enough answers; before, a second or more."""
    health = SourceHealth()
    assert health.hedge_delay() == 1.0
    for step in range(1, 11):
        health.record_success(step / 10)
    assert health.hedge_delay() == 1.0
    for _ in range(40):
        health.record_success(0.001)
    assert health.hedge_delay() == 0.05


def test_corruption_leaves_the_breaker_closed() -> None:
    """Bytes of a corrupt source are not used for a while; it may still be asked for tags or a HEAD."""
    health = SourceHealth()
    health.report_corruption(0.0)
    assert (health.state(1.0), health.usable(1.0)) == (BreakerState.OPEN, False)
    assert (health.breaker(1.0), health.allows_request(1.0)) == (BreakerState.CLOSED, True)
    for _ in range(FAILURES):
        health.record_failure(1.0)
    assert (health.breaker(1.0), health.allows_request(1.0)) == (BreakerState.OPEN, False)
    now = CORRUPT_FOR
    assert (health.state(now), health.usable(now)) == (BreakerState.HALF_OPEN, True)


def test_health_records_a_source_that_is_late() -> None:
    """The latency of a source that another one overtook is the wait for it, until its next answer."""
    health = SourceHealth()
    health.record_success(0.1)
    health.record_late(5.0)
    health.record_late(1.0)
    assert health.latency == 5.0
    health.record_success(0.1)
    assert 0.1 < health.latency < 5.0
