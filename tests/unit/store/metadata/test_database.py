"""A database that is opened again, or recreated, while it is in use."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from mirror.store.metadata.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "books", disk_min_file_size=2**24)
    yield opened
    opened.close()


def test_database_opens_at_first_use(database: Database, tmp_path: Path) -> None:
    """The database opens once, and a fault of its place shows then."""
    assert not (tmp_path / "books").exists()
    assert not database.is_current()
    database.drop_connection()
    database.cache["a"] = 1
    assert (database.is_current(), database.is_sound(), database.cache is database.cache) == (
        True,
        True,
        True,
    )


def test_database_in_use_is_not_counted(database: Database) -> None:
    """Each call looks for the open database; the truth value of a diskcache.Cache would count its rows."""
    asked: list[str] = []
    database.cache._con.set_trace_callback(asked.append)
    assert database.cache is database.cache
    assert asked == []


def test_database_connections_take_little_memory(database: Database) -> None:
    """Each thread's connection is small: there are many threads, and the file may be large."""
    pragmas = ("cache_size", "mmap_size")

    def asked() -> list[int]:
        return [database.cache._sql(f"PRAGMA {each}").fetchone()[0] for each in pragmas]

    with ThreadPoolExecutor(1) as pool:
        assert [asked(), pool.submit(asked).result()] == [[256, 0], [256, 0]]
        pool.submit(database.close).result()


def test_database_log_shrinks_after_a_long_read(database: Database, tmp_path: Path) -> None:
    """The write-ahead log must grow while a read lasts, and shrinks afterwards."""
    log = tmp_path / "books" / "cache.db-wal"
    database.cache["a"] = 1
    with closing(sqlite3.connect(tmp_path / "books" / "cache.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM Cache").fetchall()
        for number in range(3):
            database.cache[str(number)] = "x" * 8_000_000
        assert log.stat().st_size > 20_000_000
    database.cache["b"] = 1  # later writes are moved into the database
    database.cache["c"] = 1  # and the log starts at its beginning again
    assert log.stat().st_size <= 16 * 1024 * 1024


def test_database_is_recreated_for_every_thread(database: Database, tmp_path: Path) -> None:
    """The old file is quarantined; a thread that had it open goes on with the new one."""
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


def test_database_notices_removal_and_corruption(database: Database, tmp_path: Path) -> None:
    """The file and SQLite's own check tell."""
    database.cache["a"] = 1
    database.cache._sql("DROP TABLE Cache")
    assert not database.is_sound()
    for each in (tmp_path / "books").iterdir():
        each.unlink()
    assert not database.is_current()
    database.close()
    (tmp_path / "books" / "cache.db").write_bytes(b"no database" * 1000)
    assert not database.is_sound()


def test_database_that_fails_to_open_is_closed(tmp_path: Path) -> None:
    """A connection opened on a read-only disk would make all later ones read-only, even if only an error
    holds it.
    """
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "cache.db").write_bytes(b"no database" * 1000)
    database = Database(tmp_path / "books")
    with pytest.raises(sqlite3.DatabaseError) as error:
        _ = database.cache
    links = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert [each for each in links if str(tmp_path) in each] == []
    assert error.value.__traceback__ is not None


def test_short_text_is_written_as_diskcache_writes_it(database: Database) -> None:
    """`put_text` replaces, `add_text` does not; the rows are those of `set` and `add`, and counted."""
    database.put_text("a", "1")
    database.put_text("a", "2")
    database.add_text("a", "3")
    database.add_text("b", "4")
    database.cache.set("c", "5", expire=100, tag="x")
    database.put_text("c", "6")
    database.cache.set("d", "7")
    assert [database.cache.get(each) for each in "abcd"] == ["2", "4", "6", "7"]
    columns = "raw, expire_time, access_count, tag, size, mode, filename, typeof(value)"
    rows = database.cache._sql(f"SELECT {columns} FROM Cache").fetchall()
    assert len(rows) == len(database.cache) == 4
    assert len(set(rows)) == 1
    assert database.cache.check() == []


def test_short_text_is_taken_back_with_its_transaction(database: Database) -> None:
    def fail() -> None:
        with database.cache.transact():
            database.put_text("a", "1")
            raise KeyError("a")

    with pytest.raises(KeyError):
        fail()
    assert database.cache.get("a") is None
