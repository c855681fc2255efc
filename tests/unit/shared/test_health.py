"""Health of an engine."""

import pytest

from mirror.shared.health import FIRST_PAUSE, LONGEST_PAUSE, EngineHealth


def test_health_pauses_longer_each_time() -> None:
    """An engine that fails is asked again after a pause, which grows up to a bound."""
    now = 0.0
    health = EngineHealth("store", lambda: now)
    assert health.usable
    pauses = []
    for _ in range(8):
        health.record_failure("away")
        health.record_failure("sent before the pause")
        began = now
        while not health.usable:
            now += 0.5
        pauses.append(now - began)
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    assert pauses == sorted(pauses)
    health.record_success()
    assert (health.usable, health.reason) == (True, None)


def test_health_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    """One line when an engine begins to fail, one when it answers again."""
    health = EngineHealth("store", lambda: 0.0)
    for _ in range(3):
        health.record_failure("away")
    health.record_success()
    health.record_success()
    out = capsys.readouterr().out
    assert out.count("goes on alone") == 1
    assert out.count("answers again") == 1
