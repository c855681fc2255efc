"""The supervisor's pure part; tests/e2e has its processes: test_workers.py and test_restarts.py."""

from mirror.server.supervisor import LONGEST_PAUSE, restart_delay


def test_restart_delay_grows_with_early_deaths() -> None:
    """The first early death has no delay; the delay of later ones doubles up to LONGEST_PAUSE."""
    assert [restart_delay(lives) for lives in range(6)] == [0, 0, 0.5, 1, 2, 4]
    assert restart_delay(1000) == LONGEST_PAUSE
