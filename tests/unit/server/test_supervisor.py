"""The parent of workers; what it does with processes is in tests/e2e/test_workers.py."""

from mirror.server.supervisor import LONGEST_PAUSE, restart_delay


def test_the_first_death_costs_no_pause() -> None:
    """A worker that dies once is replaced at once; one that dies again and again more and more slowly."""
    assert [restart_delay(lives) for lives in range(6)] == [0, 0, 0.5, 1, 2, 4]
    assert restart_delay(1000) == LONGEST_PAUSE
