"""A database that is opened again, or made anew, under those who use it."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from mirror.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "books", disk_min_file_size=2**24)
    yield opened
    opened.close()


def test_it_is_opened_when_it_is_used(database: Database, tmp_path: Path) -> None:
    """And once; what is wrong with its place is found out then."""
    assert not (tmp_path / "books").exists()
    assert not database.is_current()
    database.drop_connection()
    database.cache["a"] = 1
    assert (database.is_current(), database.is_sound(), database.cache is database.cache) == (
        True,
        True,
        True,
    )


def test_finding_it_open_asks_nothing_of_it(database: Database) -> None:
    """It is looked for at every call, and diskcache counts its rows when it is asked whether it is true."""
    asked: list[str] = []
    database.cache._con.set_trace_callback(asked.append)
    assert database.cache is database.cache
    assert asked == []


def test_a_connection_takes_little_memory(database: Database) -> None:
    """Of whatever thread: there are many of them, and the file may be large."""
    pragmas = ("cache_size", "mmap_size")

    def asked() -> list[int]:
        return [database.cache._sql(f"PRAGMA {each}").fetchone()[0] for each in pragmas]

    with ThreadPoolExecutor(1) as pool:
        assert [asked(), pool.submit(asked).result()] == [[256, 0], [256, 0]]
        pool.submit(database.close).result()


def test_what_was_written_last_does_not_stay_large(database: Database, tmp_path: Path) -> None:
    """While somebody reads for long it must grow; after that it shrinks."""
    log = tmp_path / "books" / "cache.db-wal"
    database.cache["a"] = 1
    with closing(sqlite3.connect(tmp_path / "books" / "cache.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM Cache").fetchall()
        for number in range(3):
            database.cache[str(number)] = "x" * 8_000_000
        assert log.stat().st_size > 20_000_000
    database.cache["b"] = 1  # what is written after that is moved
    database.cache["c"] = 1  # and then written at the beginning again
    assert log.stat().st_size <= 16 * 1024 * 1024


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
    database.quarantine(tmp_path / "quarantine")
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
    assert not database.is_current()
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
