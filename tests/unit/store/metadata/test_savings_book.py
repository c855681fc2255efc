"""The savings by day."""

import sqlite3
from pathlib import Path

import pytest

from mirror.store.metadata import savings_book
from mirror.store.metadata.savings_book import DETAILED, FILE, KEPT, Amounts, SavingsBook

TODAY = 20_000


def test_savings_of_all_workers_are_added_up(tmp_path: Path) -> None:
    """Each worker adds to the same rows, which survive."""
    for _ in range(2):
        SavingsBook(tmp_path).add(
            {
                (TODAY, "hub.test", "a"): Amounts(2, 1, 100, 50, 0, 0.5),
                (TODAY, "hub.test", ""): Amounts(received=50),
                (TODAY, "quay.test", "b"): Amounts(1, 1, 300),
            }
        )
    book = SavingsBook(tmp_path)
    assert book.days(TODAY) == [(TODAY, Amounts(6, 4, 800, 100, 100, 1.0))]
    assert [name for name, _ in book.upstreams(TODAY)] == ["quay.test", "hub.test"]
    assert [name for name, _ in book.repositories(TODAY, 5)] == ["quay.test/b", "hub.test/a"]
    assert book.repositories(TODAY, 1) == [("quay.test/b", Amounts(2, 2, 600))]
    assert book.days(TODAY + 1) == []


def test_savings_lose_their_detail_and_then_go(tmp_path: Path) -> None:
    """The sums stay for a year."""
    book = SavingsBook(tmp_path)
    old, older = TODAY - DETAILED - 1, TODAY - KEPT - 1
    book.add({(old, "hub.test", "a"): Amounts(1, 1, 10), (old, "hub.test", "b"): Amounts(1, 0, 5)})
    book.add({(older, "hub.test", "a"): Amounts(1, 1, 7)})
    book.add({(TODAY, "hub.test", "a"): Amounts(1, 1, 1)})
    assert book.days(0) == [(old, Amounts(2, 1, 15)), (TODAY, Amounts(1, 1, 1))]
    assert book.repositories(0, 9) == [("hub.test/a", Amounts(1, 1, 1))]


def test_savings_of_many_repositories_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further repositories count for their upstream."""
    monkeypatch.setattr(savings_book, "MOST_REPOSITORIES", 3)
    book = SavingsBook(tmp_path)
    for number in range(10):
        book.add({(TODAY, "hub.test", f"app{number}"): Amounts(1, 1, 10)})
    assert book.days(TODAY) == [(TODAY, Amounts(10, 10, 100))]
    assert len(book.repositories(TODAY, 100)) == 3


def test_savings_file_that_is_no_database_is_replaced(tmp_path: Path) -> None:
    """Figures are no reason not to start; a folder that cannot be written is an error."""
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    book = SavingsBook(tmp_path)
    book.add({(TODAY, "hub.test", "a"): Amounts(1)})
    assert book.days(0) == [(TODAY, Amounts(1))]
    with pytest.raises(sqlite3.Error):
        SavingsBook(tmp_path / "none").days(0)
