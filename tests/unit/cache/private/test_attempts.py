from mirror.cache.private.attempts import FOR_USER, OF_NETWORK, WINDOW, FailedAttempts
from mirror.system.shared_table import SharedTable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_attempts_for_a_user_are_bounded_from_all_networks() -> None:
    attempts = FailedAttempts()
    passed = [attempts.begin(f"10.0.0.{number}", "quay.io", "me") for number in range(FOR_USER + 2)]
    assert passed == [True] * FOR_USER + [False] * 2
    assert attempts.begin("10.0.0.1", "quay.io", "you")
    assert attempts.begin("10.0.0.1", "ghcr.io", "me")


def test_attempts_of_a_network_are_bounded_for_all_users() -> None:
    attempts = FailedAttempts()
    passed = [attempts.begin("10.0.0.1", "quay.io", f"user{number}") for number in range(OF_NETWORK + 2)]
    assert passed == [True] * OF_NETWORK + [False] * 2
    assert attempts.begin("10.0.0.2", "quay.io", "user0")


def test_attempts_that_were_right_do_not_count() -> None:
    attempts = FailedAttempts()
    for _ in range(2 * OF_NETWORK):
        assert attempts.begin("10.0.0.1", "quay.io", "me")
        attempts.forgive("10.0.0.1", "quay.io", "me")


def test_attempts_count_in_windows() -> None:
    """A wrong login that is repeated forever does not block its network forever."""
    clock = Clock()
    attempts = FailedAttempts(clock=clock)
    for _ in range(3):
        passed = [attempts.begin("10.0.0.1", "quay.io", "me") for _ in range(FOR_USER + 1)]
        assert passed.count(True) == FOR_USER
        clock.now += WINDOW


def test_attempts_are_bounded_for_all_workers_together() -> None:
    """Guesses spread over connections, and so over workers, are one mirror's at the upstream."""
    cells = SharedTable().attempts
    workers = [FailedAttempts(cells) for _ in range(4)]
    passed = [
        workers[number % 4].begin(f"10.0.0.{number}", "quay.io", "me") for number in range(4 * FOR_USER)
    ]
    assert passed.count(True) == FOR_USER
    workers[0].forgive("10.0.0.1", "quay.io", "me")
    assert workers[3].begin("10.0.0.9", "quay.io", "me")
