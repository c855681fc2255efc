"""The table that workers share: sums over all of them, and nothing of those that have ended."""

import os

from mirror.system.shared_table import FRESH_SECONDS, ROWS, SLOTS, SharedTable


class Clock:
    """A clock that goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_counts_of_all_workers_add_up() -> None:
    table = SharedTable()
    first, second = table.row(0), table.row(1)
    first.add(7, 2)
    second.add(7, 3)
    second.add(8, 1)
    assert first.total(7) == second.total(7) == 5
    second.add(7, -3)
    assert first.total(7) == 2
    assert first.total(SLOTS - 1) == 0


def test_numbers_of_a_dead_worker_are_forgotten_with_its_successor() -> None:
    table = SharedTable()
    table.row(1).add(7, 100)
    table.row(2).add(7, 1)
    assert table.row(1).total(7) == 1


def test_workers_without_a_row_count_alone() -> None:
    table = SharedTable()
    extra = table.row(ROWS)
    extra.add(7, 1)
    assert extra.total(7) == 1
    assert table.row(0).total(7) == 0


def test_activity_is_forgotten_when_it_is_not_noted_again() -> None:
    clock = Clock()
    table = SharedTable(clock)
    first, second = table.row(0), table.row(1)
    first.note_active(7, 3)
    second.note_active(7, 1)
    assert first.active(7) == 4
    clock.now += FRESH_SECONDS + 0.2
    second.note_active(7, 2)
    assert first.active(7) == 2


def test_activity_survives_the_turn_of_its_clock() -> None:
    """The time of a note has sixteen bits of tenths of a second, and turns over every two hours."""
    clock = Clock()
    clock.now = 6553.5
    row = SharedTable(clock).row(0)
    row.note_active(7, 3)
    clock.now += 0.5
    assert row.active(7) == 3


def test_forked_processes_share_the_table_and_the_slots() -> None:
    table = SharedTable()
    slot = table.slot(("guests", "10.0.0.1"))
    pid = os.fork()
    if pid == 0:
        table.row(1).add(table.slot(("guests", "10.0.0.1")), 5)
        table.cells[slot] = 42.0
        os._exit(0)
    os.waitpid(pid, 0)
    assert table.row(0).total(slot) == 5
    assert table.cells[slot] == 42.0
