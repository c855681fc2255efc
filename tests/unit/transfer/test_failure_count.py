"""Failures in a row: what counts as one more, and when it is enough."""

from mirror.transfer.failure_count import ConsecutiveFailures
from mirror.upstream.http.low_speed import MIN_SPEED

PAUSES = (0.2, 0.5)


def test_attempts_that_bring_nothing() -> None:
    """One more than is bearable is too many; the pauses between them grow, up to a point."""
    failures, pauses = ConsecutiveFailures(3), []
    for second in range(3):
        failures.record(second, 0, second + 0.5)
        pauses.append(failures.pause(PAUSES))
        assert not failures.too_many
    failures.record(3, 0, 3.5)
    assert failures.too_many
    assert pauses == [0.2, 0.5, 0.5]


def test_attempts_that_bring_something() -> None:
    """As often as it breaks, it goes on at once."""
    failures = ConsecutiveFailures(1)
    for second in range(100):
        failures.record(second, (second + 1) * MIN_SPEED, second + 0.5)
        assert (failures.too_many, failures.pause(PAUSES)) == (False, 0.0)


def test_attempts_that_drip() -> None:
    """A few bytes each time, soon or after long, are nothing."""
    for seconds in (0.01, 30.0):
        failures = ConsecutiveFailures(1)
        for number in range(1, 3):
            began = number * 100.0
            failures.record(began, number * 100, began + seconds)
        assert failures.too_many


def test_connections_that_break_together() -> None:
    """One cause is one failure, however many notice it; and those asked after it are another one."""
    failures = ConsecutiveFailures(1)
    for began in (0.0, 0.1, 0.2, 0.3):
        failures.record(began, 10 * MIN_SPEED, 5.0 + began / 100)
    assert not failures.too_many
    for began in (6.0, 6.0, 7.0):
        failures.record(began, 10 * MIN_SPEED, began + 0.5)
    assert failures.too_many
