"""Health of an engine."""

import pytest

from mirror.shared.health import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    EngineHealth,
    Wait,
    Waits,
    current_waits,
    limited,
    unlimited,
)


def test_health_pauses_longer_each_time() -> None:
    """An engine that fails is asked again after a pause, which grows up to a bound."""
    health = EngineHealth("store")
    assert health.usable
    pauses: list[float] = []
    for _ in range(8):
        health.record_failure("away")
        assert not health.usable
        pauses.append(health.next_pause())
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    assert pauses == sorted(pauses)
    health.record_success()
    assert (health.usable, health.reason) == (True, None)
    assert health.next_pause() == FIRST_PAUSE


def test_health_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    """One line when an engine begins to fail, one when it answers again."""
    health = EngineHealth("store")
    for _ in range(3):
        health.record_failure("away")
    health.record_success()
    health.record_success()
    out = capsys.readouterr().out
    assert out.count("goes on alone") == 1
    assert out.count("answers again") == 1


def test_wait_counts_parallel_questions_once() -> None:
    """The time left shrinks while any question is open, by the time that has passed."""
    now = 0.0
    wait = Wait(5.0, lambda: now)
    with wait.counted():
        now += 1.0
        with wait.counted():
            now += 1.0
            assert wait.left == 3.0
        now += 1.0
    now += 100.0
    assert wait.left == 2.0
    with wait.counted():
        now += 4.0
    assert wait.left == -2.0


def test_waits_are_those_of_the_outermost_block() -> None:
    """Each engine has its own time; work in the background belongs to no request."""
    outer, inner = Waits(1.0), Waits(1.0)
    assert outer.of("objects") is outer.of("objects") is not outer.of("leases")
    with limited(outer):
        with limited(inner):
            assert current_waits() is outer
        with unlimited():
            assert current_waits() is None
        assert current_waits() is outer
    assert current_waits() is None
