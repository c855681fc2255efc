"""What is learnt about a source, and when it is left alone."""

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
    health = SourceHealth()
    for _ in range(times):
        health.record_failure(now)
    return health


def test_a_few_failures_open_the_breaker() -> None:
    """One is an accident; after some in a row it is left alone for a while."""
    assert failing(FAILURES - 1).state(0.0) is BreakerState.CLOSED
    broken = failing(FAILURES)
    assert (broken.state(0.0), broken.usable(0.0)) == (BreakerState.OPEN, False)


def test_half_open_lets_one_through() -> None:
    """Whose failure opens it for twice as long, and whose success closes it."""
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


def test_the_pause_has_an_end() -> None:
    """However often it failed."""
    health, now = SourceHealth(), 0.0
    for _ in range(FAILURES + 20):
        health.record_failure(now)
        while health.breaker(now) is BreakerState.OPEN:
            now += 0.5
    health.record_failure(now)
    assert health.state(now + LONGEST_PAUSE / 2) is BreakerState.OPEN
    assert health.state(now + LONGEST_PAUSE) is BreakerState.HALF_OPEN


def test_those_who_noticed_together_do_not_come_back_together() -> None:
    """The pause is shorter by chance, and never by much."""
    health = SourceHealth(lambda: 0.5)
    health.record_failure(0.0, FAILURES)
    early = FIRST_PAUSE * (1 - JITTER / 2)
    assert (health.state(early - 0.01), health.state(early)) == (BreakerState.OPEN, BreakerState.HALF_OPEN)


def test_those_who_fail_together_open_it_once() -> None:
    """A dozen requests into the same black hole keep it shut no longer than one."""
    assert failing(12).state(FIRST_PAUSE) is BreakerState.HALF_OPEN


def test_a_success_forgives() -> None:
    """Failures must come in a row."""
    health = failing(FAILURES - 1)
    health.record_success(0.1)
    health.record_failure(0.0)
    assert health.state(0.0) is BreakerState.CLOSED


def test_wrong_bytes_are_not_forgiven_soon() -> None:
    """One is enough."""
    health = SourceHealth()
    health.report_corruption(0.0)
    health.record_success(0.1)
    assert not health.usable(CORRUPT_FOR - 1)
    assert health.usable(CORRUPT_FOR)


def test_who_was_suspected_wrongly_is_back() -> None:
    """At once; but not from what it did otherwise."""
    health = SourceHealth()
    health.suspect(0.0)
    assert not health.usable(CORRUPT_FOR - 1)
    health.clear_suspicion()
    assert health.state(0.0) is BreakerState.CLOSED
    health.report_corruption(0.0)
    health.suspect(0.0)
    health.clear_suspicion()
    assert health.state(0.0) is BreakerState.OPEN


def test_averages_follow() -> None:
    """The first measurement counts whole, later ones in part; nothing is learnt from nothing."""
    health = SourceHealth()
    health.record_success(1.0)
    health.record_transfer(100, 1.0)
    assert (health.latency, health.speed) == (1.0, 100.0)
    health.record_success(2.0)
    health.record_transfer(200, 1.0)
    health.record_transfer(0, 1.0)
    assert health.latency == pytest.approx(1.3)
    assert health.speed == pytest.approx(130.0)


def test_patience_is_its_own_ninetieth_percentile() -> None:
    """Once there are enough answers to tell; before, a second or more."""
    health = SourceHealth()
    assert health.hedge_delay() == 1.0
    for step in range(1, 11):
        health.record_success(step / 10)
    assert health.hedge_delay() == 1.0
    for _ in range(40):
        health.record_success(0.001)
    assert health.hedge_delay() == 0.05


def test_a_liar_answers_all_the_same() -> None:
    """Its bytes are not believed for a while; that it can be asked, for tags or a HEAD, is another matter."""
    health = SourceHealth()
    health.report_corruption(0.0)
    assert (health.state(1.0), health.usable(1.0)) == (BreakerState.OPEN, False)
    assert (health.breaker(1.0), health.allows_request(1.0)) == (BreakerState.CLOSED, True)
    for _ in range(FAILURES):
        health.record_failure(1.0)
    assert (health.breaker(1.0), health.allows_request(1.0)) == (BreakerState.OPEN, False)
    now = CORRUPT_FOR
    assert (health.state(now), health.usable(now)) == (BreakerState.HALF_OPEN, True)
