"""CPU load: how saturated this process is."""

import time

import pytest

from mirror.system.cpu_load import MEASURE_SECONDS, CpuLoad

SHARE = 0.8


class Clock:
    """The clocks of this process, as `time` reports them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.thread = 100.0
        self.process = 900.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "thread_time", lambda: clock.thread)
    monkeypatch.setattr(time, "process_time", lambda: clock.process)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    return clock


def test_cpu_load_of_the_event_loop_alone(clock: Clock) -> None:
    """One thread that never rests is the limit, however many processors there are."""
    load = CpuLoad(SHARE)
    clock.thread, clock.process = 101.0, 901.0
    assert load.seconds() == 1.0


def test_cpu_load_of_all_processors(clock: Clock) -> None:
    """The loop waits for threads that use all processors; earlier work is added."""
    load = CpuLoad(SHARE)
    clock.thread, clock.process = 100.5, 904.0
    assert load.seconds() == 1.0
    clock.thread, clock.process = 100.5, 904.0
    assert load.seconds() == 1.0
    clock.thread = 101.5
    assert load.seconds() == 2.0


def test_cpu_load_is_saturated_for_one_measurement(clock: Clock) -> None:
    """Saturated when most of the measured time was work; until the next measurement."""
    load = CpuLoad(SHARE)
    assert not load.saturated()
    clock.now, clock.thread = MEASURE_SECONDS, 100.0 + 0.9 * MEASURE_SECONDS
    assert load.saturated()
    clock.now += MEASURE_SECONDS / 2
    assert load.saturated()
    clock.now += MEASURE_SECONDS / 2
    assert not load.saturated()
