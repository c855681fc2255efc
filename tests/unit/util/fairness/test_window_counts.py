"""Counts in windows: they end, are bounded, and belong to all who share the cells."""

from mirror.util.fairness.window_counts import COUNTS, OWN_CELLS, WindowCounts


class Clock:
    now = 1_000_000.5

    def __call__(self) -> float:
        return self.now


def test_window_begins_with_its_first_event() -> None:
    clock = Clock()
    counts = WindowCounts(60.0, clock=clock)
    assert [counts.add("a"), counts.add("a", 2), counts.count("b")] == [1, 3, 0]
    clock.now += 59.0
    assert counts.add("a") == 4
    clock.now += 1.0
    assert [counts.count("a"), counts.add("a")] == [0, 1]


def test_counts_are_taken_back_and_never_negative() -> None:
    counts = WindowCounts(60.0)
    counts.add("a")
    assert [counts.add("a", -1), counts.add("a", -1), counts.count("a")] == [0, 0, 0]


def test_count_never_reaches_into_the_time_of_its_window() -> None:
    counts = WindowCounts(60.0)
    for _ in range(COUNTS + 10):
        counts.add("a")
    assert counts.count("a") == COUNTS - 1


def test_cells_are_shared_and_as_many_as_at_first() -> None:
    cells = [0.0] * OWN_CELLS
    one, other = WindowCounts(60.0, cells), WindowCounts(60.0, cells)
    for number in range(2 * OWN_CELLS):
        one.add(f"client {number}")
    one.add("a")
    assert other.count("a") >= 1
    assert len(cells) == OWN_CELLS
