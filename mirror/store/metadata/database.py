"""A diskcache database that can be opened again, or recreated, while it is in use."""

import errno
import os
import re
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import diskcache
from diskcache.core import DBNAME, MODE_PICKLE, MODE_RAW

from mirror.util.durable import move_into, reserve

# How long a write waits for another process's write before it fails with StoreError, in seconds.
BUSY_SECONDS = 5.0


# SQLite's own files: the database, the write-ahead log, and the memory that its users share.
FILES = (DBNAME, f"{DBNAME}-wal", f"{DBNAME}-shm")

# Every thread has a connection to each database, and diskcache would let each of them take 32 MiB of memory
# and map 64 MiB of the file: a gigabyte in all, once there are a million blobs. The kernel caches the file
# for all of them; with 1 MiB of its own a connection is no slower. And without a mapping, a page that the
# disk cannot read is an error instead of a signal that ends the process.
SQLITE = {
    "sqlite_cache_size": 256,  # pages of 4 KiB
    "sqlite_mmap_size": 0,
    # The write-ahead log is moved into the database gradually, and its file is used again. The file grows
    # while a long read lasts, a backup for instance, and shrinks to this size afterwards.
    "sqlite_journal_size_limit": 16 * 1024 * 1024,
}

# Room, in bytes, that is kept behind the write-ahead log of a database that must be writable on a full disk.
# A transaction that removes one row takes eight pages of 4 KiB.
LOG_RESERVE = 1024 * 1024

# SQL: a row as diskcache writes one of short text, which has no file, and its update.
INSERT = (
    "INSERT INTO Cache (key, raw, store_time, access_time, access_count, size, mode, value)"
    " VALUES (?, 1, ?, ?, 0, 0, ?, ?)"
)
UPDATE = (
    "SET store_time = excluded.store_time, expire_time = NULL, access_time = excluded.access_time,"
    " access_count = 0, tag = NULL, size = 0, mode = excluded.mode, filename = NULL, value = excluded.value"
)


class ForeignRow(OSError):
    """A row that this program did not write; an OSError, because diskcache treats that as a missing row."""


class PlainDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """diskcache's storage, for text only: other keys and values are refused, written or read.

    A row names its file, and a writer of the database chooses the name: only names that the storage
    gives are followed, here diskcache's own.
    """

    FILE_NAME: ClassVar[re.Pattern[str]] = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")

    def put(self, key: object) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError(f"keys are str, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            raise ForeignRow("a key that is not text")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, str | None, Any]:
        if not isinstance(value, str):
            raise TypeError(f"values are str, not {type(value).__name__}")
        stored: tuple[int, int, str | None, Any] = super().store(value, False, key=key)
        return stored

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> Any:
        if mode == MODE_PICKLE:
            raise ForeignRow("a pickled value")
        if filename is not None and not self.is_own_name(filename):
            raise ForeignRow("a file name that is not one of the mirror")
        return super().fetch(mode, filename, value, read)

    def remove(self, file_path: str) -> None:
        if self.is_own_name(file_path):
            super().remove(file_path)

    @classmethod
    def is_own_name(cls, name: object) -> bool:
        """Return whether this storage can have given the name to a file."""
        return isinstance(name, str) and cls.FILE_NAME.fullmatch(name) is not None


class Database:
    """The database `folder/cache.db`, used from any thread. `options` are diskcache's.

    `schema`: statements that create what diskcache does not, where it is not there.
    """

    def __init__(self, folder: Path, schema: Sequence[str] = (), **options: Any) -> None:
        self.folder = folder
        self._schema = schema
        self._options = options
        self._lock = threading.Lock()
        self._opened: diskcache.Cache | None = None
        self._opened_file: os.stat_result | None = None
        self._thread = threading.local()

    @property
    def cache(self) -> diskcache.Cache:
        """Return the opened database. OSError or sqlite3.Error if that fails."""
        # Compared with None, because the truth value of a diskcache.Cache costs a count of its rows.
        cache = self._open() if self._opened is None else self._opened
        if (previous := getattr(self._thread, "cache", None)) is not cache:
            if previous is not None:
                previous.close()
            self._thread.cache = cache
        return cache

    def query(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run an SQL statement and return its rows."""
        found: list[tuple[Any, ...]] = self.cache._sql(statement, values).fetchall()
        return found

    def size(self) -> int:
        """Return the bytes on the disk, without the write-ahead log."""
        return int(self.cache.volume())

    def probe(self, *, write: bool) -> None:
        """Read a row, or begin a write that changes nothing. Raises OSError or sqlite3.Error."""
        if not write:
            self.query("SELECT key FROM Cache ORDER BY key LIMIT 1")
            return
        with self.cache.transact():
            self.cache._sql("UPDATE Settings SET value = value WHERE key = 'count'")

    def put_text(self, key: str, text: str) -> None:
        """Write a row of short text, in one statement where diskcache's `set` takes two and a transaction.

        Long text, which diskcache would put into a file, makes a large row here.
        """
        self.cache._sql(f"{INSERT} ON CONFLICT (key, raw) DO UPDATE {UPDATE}", _row(key, text))

    def add_text(self, key: str, text: str) -> None:
        """Write a row of short text unless the key has one, in one statement."""
        self.cache._sql(f"{INSERT} ON CONFLICT (key, raw) DO NOTHING", _row(key, text))

    def reserve_log(self) -> None:
        """Reserve room for the next transactions, which then succeed on a disk that is full by then.

        The write-ahead log takes all writes, and grows with most of them. SQLite locks other files than this
        one, so that closing a descriptor of it releases no lock.
        """
        with suppress(OSError):
            reserve(self.folder / f"{DBNAME}-wal", LOG_RESERVE)

    def sync_log(self) -> None:
        """Wait until what was committed is on the disk; SQLite leaves that to the kernel.

        The write-ahead log has all of it (`reserve_log` says why it may be closed). OSError.
        """
        with suppress(FileNotFoundError):  # moved into the database, and synced, by the last connection
            descriptor = os.open(self.folder / f"{DBNAME}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def drop_connection(self) -> None:
        """Close this thread's connection: a transaction whose commit failed would stay open in it."""
        if (cache := getattr(self._thread, "cache", None)) is not None:
            with suppress(sqlite3.Error):
                cache.close()

    def is_current(self) -> bool:
        """Return whether the name still belongs to the file that was opened."""
        if self._opened_file is None:
            return False
        try:
            return os.path.samestat(self._opened_file, os.stat(self.folder / DBNAME))
        except OSError:
            return False

    def is_sound(self) -> bool:
        """Return whether SQLite finds the database intact. Reads all of it."""
        try:
            rows = self.cache._sql("PRAGMA quick_check(1)").fetchall()
            self.cache._sql("SELECT count(*) FROM Cache WHERE rowid < 0").fetchall()
        except sqlite3.OperationalError as error:
            return "no such table" not in str(error)
        except sqlite3.DatabaseError:
            return False
        return bool(rows == [("ok",)])

    def reopen(self) -> None:
        """Make the next use open the file of that name again."""
        with self._lock:
            self._opened = None

    def quarantine(self, quarantine: Path) -> None:
        """Move the database out of the way; the next use creates a new one."""
        suffix = f"{self.folder.name}-{time.time_ns()}"
        for name in FILES:
            with suppress(FileNotFoundError):
                move_into(quarantine, self.folder / name, f"{name}.{suffix}")
        self.reopen()

    def close(self) -> None:
        """Close this thread's connection."""
        self.drop_connection()
        self._thread.cache = None

    def _open(self) -> diskcache.Cache:
        with self._lock:
            if self._opened is None:
                cache = self._connect()
                self._opened_file = os.stat(self.folder / DBNAME)
                self._opened = cache
            return self._opened

    def _connect(self) -> diskcache.Cache:
        """Return an opened database. If that fails half-way, the connection is closed again.

        While a process has one connection that was opened on a read-only disk, all that it opens later are
        read-only too: they share memory.
        """
        cache = diskcache.Cache.__new__(diskcache.Cache)
        try:
            cache.__init__(str(self.folder), **SQLITE, **self._options)
            for statement in self._schema:
                cache._sql(statement)
            return cache
        except BaseException as error:
            with suppress(AttributeError, sqlite3.Error):  # diskcache failed before it had a connection
                cache.close()
            if not isinstance(error, sqlite3.Error) or not _is_read_only(self.folder):
                raise
        # SQLite says "unable to open database file", as of a file that is gone: not even as the context.
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.folder / DBNAME))


def _row(key: str, text: str) -> tuple[object, ...]:
    now = time.time()
    return key, now, now, MODE_RAW, text


def _is_read_only(folder: Path) -> bool:
    """Return whether the file system of the folder is mounted read-only."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False
