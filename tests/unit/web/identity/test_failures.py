"""Wrong passwords are counted by client and user, for a minute."""

from mirror.system.shared_table import SharedTable
from mirror.web.identity.failures import MOST_FOR_ADDRESS, MOST_FOR_USER, WINDOW_SECONDS, Failures


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_user_of_one_address_is_blocked_and_others_are_not() -> None:
    failures = Failures(Clock())
    noted = [failures.note("10.0.0.1", "alice") for _ in range(MOST_FOR_USER)]
    assert noted == [*[False] * (MOST_FOR_USER - 1), True]
    assert failures.blocked("10.0.0.1", "alice")
    assert not failures.blocked("10.0.0.1", "bob")
    assert not failures.blocked("10.0.0.2", "alice")
    assert not failures.note("10.0.0.1", "alice")


def test_address_is_blocked_for_all_users() -> None:
    failures = Failures(Clock())
    for number in range(MOST_FOR_ADDRESS):
        assert not failures.blocked("10.0.0.1", "new")
        failures.note("10.0.0.1", f"user{number}")
    assert failures.blocked("10.0.0.1", "new")
    assert not failures.blocked("10.0.0.2", "new")


def test_failures_are_forgotten_a_minute_after_the_first() -> None:
    clock = Clock()
    failures = Failures(clock)
    for _ in range(MOST_FOR_USER):
        failures.note("10.0.0.1", "alice")
        clock.now += 1.0
    assert failures.blocked("10.0.0.1", "alice")
    clock.now = WINDOW_SECONDS
    assert not failures.blocked("10.0.0.1", "alice")
    assert not failures.note("10.0.0.1", "alice")


def test_failures_are_bounded_for_all_workers_together() -> None:
    """A client that opens many connections guesses no more often than one with one."""
    cells = SharedTable().attempts
    workers = [Failures(Clock(), cells) for _ in range(4)]
    for number in range(MOST_FOR_USER):
        assert not workers[3].blocked("10.0.0.1", "alice")
        workers[number % 3].note("10.0.0.1", "alice")
    assert workers[3].blocked("10.0.0.1", "alice")
