"""How much of what this process can do it is doing."""

import time

import pytest

from mirror.transfer.cpu_load import MEASURE_SECONDS, CpuLoad


class Clock:
    """What `time` tells of this process."""

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


def test_the_loop_alone_can_be_the_limit(clock: Clock) -> None:
    """One thread that never rests, however many processors there are."""
    load = CpuLoad()
    clock.thread, clock.process = 101.0, 901.0
    assert load.seconds() == 1.0


def test_so_can_all_processors_together(clock: Clock) -> None:
    """A loop that waits for threads that use all there is; and what came before is added."""
    load = CpuLoad()
    clock.thread, clock.process = 100.5, 904.0
    assert load.seconds() == 1.0
    clock.thread, clock.process = 100.5, 904.0
    assert load.seconds() == 1.0
    clock.thread = 101.5
    assert load.seconds() == 2.0


def test_strained_is_who_could_hardly_do_more(clock: Clock) -> None:
    """Over a while, of which most was work; until the next while is over."""
    load = CpuLoad()
    assert not load.saturated()
    clock.now, clock.thread = MEASURE_SECONDS, 100.0 + 0.9 * MEASURE_SECONDS
    assert load.saturated()
    clock.now += MEASURE_SECONDS / 2
    assert load.saturated()
    clock.now += MEASURE_SECONDS / 2
    assert not load.saturated()
