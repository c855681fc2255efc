"""Consecutive failures: what counts as one more, and when there are too many."""

from mirror.transfer.failure_count import ConsecutiveFailures
from mirror.upstream.http.low_speed import MIN_SPEED

PAUSES = (0.2, 0.5)


def test_failure_count_of_attempts_without_progress() -> None:
    """One failure more than allowed is too many; the pauses between attempts grow, up to a point."""
    failures, pauses = ConsecutiveFailures(3), []
    for second in range(3):
        failures.record(second, 0, second + 0.5)
        pauses.append(failures.pause(PAUSES))
        assert not failures.too_many
    failures.record(3, 0, 3.5)
    assert failures.too_many
    assert pauses == [0.2, 0.5, 0.5]


def test_failure_count_restarts_after_progress() -> None:
    """However often a transfer breaks, it is resumed at once."""
    failures = ConsecutiveFailures(1)
    for second in range(100):
        failures.record(second, (second + 1) * MIN_SPEED, second + 0.5)
        assert (failures.too_many, failures.pause(PAUSES)) == (False, 0.0)


def test_failure_count_ignores_a_few_bytes() -> None:
    """A few bytes per attempt are no progress, soon or late."""
    for seconds in (0.01, 30.0):
        failures = ConsecutiveFailures(1)
        for number in range(1, 3):
            began = number * 100.0
            failures.record(began, number * 100, began + seconds)
        assert failures.too_many


def test_failure_count_of_connections_that_break_together() -> None:
    """One cause is one failure, however many connections notice it; requests made after it count again."""
    failures = ConsecutiveFailures(1)
    for began in (0.0, 0.1, 0.2, 0.3):
        failures.record(began, 10 * MIN_SPEED, 5.0 + began / 100)
    assert not failures.too_many
    for began in (6.0, 6.0, 7.0):
        failures.record(began, 10 * MIN_SPEED, began + 0.5)
    assert failures.too_many


def test_failure_count_announces_the_last_attempt() -> None:
    """After as many failures as the download survives, the next attempt is the last one."""
    failures = ConsecutiveFailures(2)
    failures.record(0.0, 0, 1.0)
    assert not failures.next_is_last
    failures.record(2.0, 0, 3.0)
    assert (failures.next_is_last, failures.too_many) == (True, False)
