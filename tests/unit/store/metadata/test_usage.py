"""Sums of bytes by day: added to by all workers, and kept for one day."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.store.metadata.index import Index
from mirror.store.metadata.usage import UsageBook


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(tmp_path / "books")
    yield opened
    opened.close()


def test_sums_of_several_workers_add_up(index: Index) -> None:
    first, second = UsageBook(index), UsageBook(index)
    assert first.add(7, {"a": 10, "b": 1}) == {"a": 10, "b": 1}
    assert second.add(7, {"a": 5, "c": 0}) == {"a": 15, "c": 0}
    assert first.add(7, {"a": 0}) == {"a": 15}


def test_sums_of_earlier_days_are_removed(index: Index) -> None:
    UsageBook(index).add(9, {"a": 10})
    book = UsageBook(index)
    assert book.add(10, {"a": 1}) == {"a": 1}
    keys = [key for (key,) in index.database.query("SELECT key FROM Cache WHERE key LIKE 'usage:%'")]
    assert keys == ["usage:00000010:a"]


def test_sum_that_cannot_be_read_begins_again(index: Index) -> None:
    index.database.cache.set("usage:00000010:a", "nonsense")
    assert UsageBook(index).add(10, {"a": 3}) == {"a": 3}
