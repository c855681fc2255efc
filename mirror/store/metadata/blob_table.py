"""The entries of blobs: rows of diskcache's table, which has the name of each blob's file."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import diskcache
from diskcache.core import EVICTION_POLICY, MODE_BINARY
from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.store.metadata.database import Database
from mirror.store.metadata.retention import EVICTABLE

# Rows to read at a time, so that no list is long and no thread is busy for long.
ROWS = 500

# diskcache's own policy, least recently used, writes a row on every get, and culls ten rows whatever their
# size. Here BlobStore.touch writes last use in batches, and BlobStore.evict chooses what goes.
POLICY = "least-recently-served"
EVICTION_POLICY[POLICY] = {
    "init": "CREATE INDEX IF NOT EXISTS Cache_access_time ON Cache (access_time)",
    "get": None,
    "cull": None,
}


class BlobRow(Struct, frozen=True):
    """An entry: the digest as text, the file's name below the blobs, its size in bytes."""

    digest: str
    name: str
    size: int


# A position in the order of last use: the moment, and the row's number, which orders rows of one moment.
Position = tuple[float, int]
START: Position = (-math.inf, 0)


class BlobTable:
    """The entries in one database. Every method blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def _cache(self) -> diskcache.Cache:
        return self._database.cache

    def tag(self, digest: Digest) -> str | None:
        """Return the tag of an entry, which has the size and the origin (`blobs.entries.Origin`)."""
        found = self._cache._sql("SELECT tag FROM Cache WHERE key = ?", (str(digest),)).fetchone()
        return None if found is None else str(found[0])

    def add(self, row: BlobRow) -> None:
        """Add an entry, unless there is one."""
        self._cache._sql(
            "INSERT OR IGNORE INTO Cache"
            " (key, raw, store_time, access_time, access_count, tag, size, mode, filename)"
            " VALUES (?, 1, ?, ?, 0, ?, ?, ?, ?)",
            (row.digest, time.time(), time.time(), str(row.size), row.size, MODE_BINARY, row.name),
        )

    def delete(self, row: BlobRow, *, evictable: bool = False) -> bool:
        """Remove an entry; return whether it was there. If a new entry has another file, it stays.

        `evictable`: so does one that is retained.
        """
        condition = EVICTABLE if evictable else "1"
        statement = f"DELETE FROM Cache WHERE key = ? AND filename = ? AND {condition}"  # noqa: S608  # ours
        return bool(self._cache._sql(statement, (row.digest, row.name)).rowcount)

    def rows(self, after: str, limit: int) -> list[BlobRow]:
        """Return up to `limit` entries in the order of their digests, after the digest `after`."""
        found = self._cache._sql(
            "SELECT key, filename, size FROM Cache WHERE key > ? ORDER BY key LIMIT ?", (after, limit)
        ).fetchall()
        return [BlobRow(str(key), str(name), int(size)) for key, name, size in found]

    def digests(self, after: str, limit: int) -> list[str]:
        """Return the digests of up to `limit` entries in their order, after `after`: faster than `rows`."""
        found = self._cache._sql(
            "SELECT key FROM Cache WHERE key > ? ORDER BY key LIMIT ?", (after, limit)
        ).fetchall()
        return [str(key) for (key,) in found]

    def row(self, digest: str) -> BlobRow | None:
        """Return the entry of a digest."""
        found = self._cache._sql("SELECT key, filename, size FROM Cache WHERE key = ?", (digest,)).fetchone()
        return None if found is None else BlobRow(str(found[0]), str(found[1]), int(found[2]))

    def verified_at(self, row: BlobRow) -> float:
        """Return when the file was last found right (seconds since the epoch); 0 if the entry is gone.

        diskcache's `store_time` has it: the moment of an adoption, which follows a verification.
        """
        statement = "SELECT store_time FROM Cache WHERE key = ? AND filename = ?"
        found = self._cache._sql(statement, (row.digest, row.name)).fetchone()
        return 0.0 if found is None else float(found[0])

    def note_verified(self, row: BlobRow) -> None:
        """Record that the file was found right now."""
        statement = "UPDATE Cache SET store_time = ? WHERE key = ? AND filename = ?"
        self._cache._sql(statement, (time.time(), row.digest, row.name))

    def by_last_use(self, before: float, last: Position) -> Iterator[tuple[Position, BlobRow]]:
        """Yield entries last used before a moment, least recently used first, read a batch at a time."""
        while True:
            rows = self._cache._sql(
                f"SELECT access_time, rowid, key, filename, size FROM Cache WHERE {EVICTABLE}"  # noqa: S608
                " AND (access_time, rowid) > (?, ?) AND access_time < ?"
                " ORDER BY access_time, rowid LIMIT ?",
                (*last, before, ROWS),
            ).fetchall()
            for moment, number, key, name, size in rows:
                yield (moment, number), BlobRow(key, name, size)
            if len(rows) < ROWS:
                return
            last = rows[-1][:2]

    def size(self) -> int:
        """Return the bytes of all blobs."""
        return int(self._cache.reset("size"))

    def sizes_and_last_use(self, digests: Iterable[str]) -> dict[str, tuple[int, float]]:
        """Return size and last use (seconds since the epoch) of those digests that are here."""
        found: dict[str, tuple[int, float]] = {}
        wanted = list(digests)
        for start in range(0, len(wanted), ROWS):
            some = wanted[start : start + ROWS]
            marks = ",".join("?" * len(some))
            rows = self._cache._sql(
                f"SELECT key, size, access_time FROM Cache WHERE key IN ({marks})",  # noqa: S608  # marks only
                some,
            )
            found.update({key: (size, used) for key, size, used in rows})
        return found

    def entries(self, before: float) -> Iterator[tuple[str, int, str]]:
        """Yield digest, size and file name of all blobs last used before a moment, by digest."""
        last = ""
        while True:
            rows = self._cache._sql(
                "SELECT key, size, filename FROM Cache"
                " WHERE key > ? AND access_time < ? ORDER BY key LIMIT ?",
                (last, before, ROWS),
            ).fetchall()
            yield from rows
            if len(rows) < ROWS:
                return
            last = rows[-1][0]

    def file_names(self, digests: Iterable[str]) -> set[str]:
        """Return the names of these digests' files. Up to ROWS digests."""
        wanted = list(digests)
        marks = ",".join("?" * len(wanted))
        rows = self._cache._sql(f"SELECT filename FROM Cache WHERE key IN ({marks})", wanted)  # noqa: S608
        return {name for (name,) in rows}

    def touch(self, used: Mapping[Digest, float]) -> list[Digest]:
        """Write the last use of blobs (seconds since the epoch); return those that are not here.

        A batch at a time: another writer waits for one transaction, not for all that a crowd has used.
        """
        moments, missing = iter(used.items()), []
        while some := list(islice(moments, ROWS)):
            with self._cache.transact():
                for digest, moment in some:
                    row = (moment, str(digest))
                    if not self._cache._sql("UPDATE Cache SET access_time = ? WHERE key = ?", row).rowcount:
                        missing.append(digest)
        self._database.reserve_log()
        return missing
