"""A database that is opened again, or made anew, under those who use it."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "books")
    yield opened
    opened.close()


def test_it_is_opened_when_it_is_used(database: Database, tmp_path: Path) -> None:
    """And once; what is wrong with its place is found out then."""
    assert not (tmp_path / "books").exists()
    assert not database.is_there()
    database.drop_connection()
    database.cache["a"] = 1
    assert (database.is_there(), database.is_sound(), database.cache is database.cache) == (True, True, True)


def test_made_anew_for_every_thread(database: Database, tmp_path: Path) -> None:
    """The old one is set aside; a thread that had it open goes on with the new one."""
    database.cache["a"] = 1
    go, done, found = threading.Event(), threading.Event(), list[object]()

    def other() -> None:
        found.append(database.cache["a"])
        done.set()
        go.wait(10)
        found.append(database.cache.get("a"))
        database.close()

    thread = threading.Thread(target=other)
    thread.start()
    done.wait(10)
    database.set_aside(tmp_path / "quarantine")
    go.set()
    thread.join()
    assert found == [1, None]
    assert any(each.name.startswith("cache.db.books-") for each in (tmp_path / "quarantine").iterdir())


def test_what_was_removed_or_spoilt_is_noticed(database: Database, tmp_path: Path) -> None:
    """By its file, and by what SQLite says of it."""
    database.cache["a"] = 1
    database.cache._sql("DROP TABLE Cache")
    assert not database.is_sound()
    for each in (tmp_path / "books").iterdir():
        each.unlink()
    assert not database.is_there()
    database.close()
    (tmp_path / "books" / "cache.db").write_bytes(b"no database" * 1000)
    assert not database.is_sound()


def test_what_cannot_be_opened_is_not_held_open(tmp_path: Path) -> None:
    """Not even by the error: what was opened on a disk that was read-only would make all that follows so."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "cache.db").write_bytes(b"no database" * 1000)
    database = Database(tmp_path / "books")
    with pytest.raises(sqlite3.DatabaseError) as error:
        _ = database.cache
    held = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert [each for each in held if str(tmp_path) in each] == []
    assert error.value.__traceback__ is not None
