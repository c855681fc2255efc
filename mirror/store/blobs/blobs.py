"""The blob store: verified files by digest. diskcache keeps their entries.

Synchronous: everything here runs in a disk thread.
"""

import errno
import math
import os
import stat
import sys
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import diskcache
from diskcache.core import MODE_BINARY

from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import KEPT_MODE, POLICY, AdoptingDisk, VerifiedFile
from mirror.store.blobs.entries import (
    START,
    BlobRow,
    EvictedBlob,
    Eviction,
    EvictionReason,
    OpenBlob,
    Origin,
    Position,
)
from mirror.store.blobs.quarantine import Quarantine
from mirror.store.blobs.retention import EVICTABLE, SCHEMA, Retention
from mirror.store.database import BUSY_SECONDS, Database
from mirror.store.lock import lock_if_unread, lock_shared
from mirror.util.callbacks import ignore
from mirror.util.durable import open_file
from mirror.util.log import get_logger

log = get_logger(__name__)


# The errors by which a disk says that it cannot read a file any more, or that a link is in the file's place.
UNREADABLE_ERRNOS = frozenset({errno.EIO, errno.EUCLEAN, errno.ENODATA, errno.ELOOP})

# Bytes of one read whose content is not used.
READ_BYTES = 1024 * 1024
# Rows to read at a time, so that no list is long and no thread is busy for long.
ROWS = 500


class BlobStore:
    """The database `folder/cache.db` and the files that its entries name."""

    def __init__(self, folder: Path, quarantine: Path) -> None:
        self.folder = folder
        self.quarantined = Quarantine(quarantine)
        self.on_entry_dropped: Callable[[], object] = ignore  # called when a blob turns out to be missing
        self.database = Database(
            folder,
            SCHEMA,
            timeout=BUSY_SECONDS,
            disk=AdoptingDisk,
            eviction_policy=POLICY,
            size_limit=sys.maxsize,
            cull_limit=0,  # `evict` chooses: diskcache knows neither pins nor blobs in use
        )
        self.retention = Retention(self.database)

    @property
    def _cache(self) -> diskcache.Cache:
        return self.database.cache

    def has(self, digest: Digest) -> bool:
        """Return whether there is an entry."""
        return str(digest) in self._cache

    def origin(self, digest: Digest) -> Origin | None:
        """Return how a blob came; None if there is no entry."""
        found = self._cache._sql("SELECT tag FROM Cache WHERE key = ?", (str(digest),)).fetchone()
        return None if found is None else Origin.of(str(found[0]))

    def open(self, digest: Digest) -> OpenBlob | None:
        """Open a blob. A missing file, or one of the wrong size, counts as a miss (failure table)."""
        found = self._cache.get(str(digest), tag=True)
        path, size = found
        if path is None:
            row = self.row(str(digest))
            if row is not None and not AdoptingDisk.is_own_name(row.name):  # no file that was adopted
                self.drop_entry(row)
            return None
        try:
            file = open_file(path)
        except FileNotFoundError:
            self.drop_entry(BlobRow(str(digest), str(path.relative_to(self.database.folder)), int(size)))
            return None
        except OSError as error:
            self._quarantine_unreadable(digest, error)
            return None
        lock_shared(file.fileno())
        status = os.fstat(file.fileno())
        if status.st_size != int(size) or not stat.S_ISREG(status.st_mode):
            file.close()
            self.quarantine(digest)
            return None
        return OpenBlob(file, int(size), Origin.of(size))

    def read(self, digest: Digest, limit: int) -> bytes | None:
        """Return a whole blob of up to `limit` bytes, unverified."""
        blob = self.open(digest)
        if blob is None:
            return None
        with blob.file:
            try:
                return blob.file.read() if blob.size <= limit else None
            except OSError as error:
                self._quarantine_unreadable(digest, error)
                return None

    def quarantine_if_unreadable(self, digest: Digest) -> None:
        """Read a blob that broke off to its end, and quarantine it if its file is the cause."""
        blob = self.open(digest)
        if blob is None:
            return
        with blob.file:
            try:
                while blob.file.read(READ_BYTES):
                    pass
            except OSError as error:
                self._quarantine_unreadable(digest, error)

    def quarantine(self, digest: Digest) -> None:
        """Quarantine a file that does not have its digest or size; from now on the blob is a miss."""
        log.error(
            "blob corrupt on disk, quarantined", digest=str(digest), quarantine=str(self.quarantined.folder)
        )
        row = self.row(str(digest))
        if row is None:
            return
        # Entry first, file second (invariant 8).
        self.drop_entry(row)
        if AdoptingDisk.is_own_name(row.name):
            self.quarantined.add(self.database.folder / row.name)

    def add(self, *verified: VerifiedFile) -> None:
        """Adopt verified files, in one transaction.

        Durable ones are synced first, so that a name never outlives its bytes.
        """
        for each in (each for each in verified if not each.is_ready):
            with open_file(each.path) as file:
                if each.durable:
                    os.fdatasync(file.fileno())
                os.fchmod(file.fileno(), KEPT_MODE)
        with self._disk().undo_on_error(), self._cache.transact():
            for each in verified:
                # The size is in the entry's tag too: get() returns the tag but not the size.
                self._cache.add(str(each.digest), each, tag=each.origin.tag(each.size))
            pushed = [str(each.digest) for each in verified if each.retained]
            self.retention.note_added([str(each.digest) for each in verified], pushed)
        self.database.reserve_log()

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

    def drop_entry(self, row: BlobRow) -> None:
        """Remove an entry whose file is wrong or missing, unless it names another file by now; the file
        stays.

        Copies in memory may be intact, but they would keep the blob from being fetched again: they are
        dropped too.
        """
        if self._delete_row(row):
            self.on_entry_dropped()

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

    def add_entry(self, row: BlobRow) -> None:
        """Add an entry for a file that is in its place and was verified."""
        self._cache._sql(
            "INSERT OR IGNORE INTO Cache"
            " (key, raw, store_time, access_time, access_count, tag, size, mode, filename)"
            " VALUES (?, 1, ?, ?, 0, ?, ?, ?, ?)",
            (row.digest, time.time(), time.time(), str(row.size), row.size, MODE_BINARY, row.name),
        )
        self.retention.note_added([row.digest])

    def evict(
        self,
        before: float,
        excess: int | None,
        keep: Container[str],
        after: Position = START,
        *,
        remove: bool = True,
    ) -> Eviction:
        """Evict blobs last used before a moment (seconds since the epoch), least recently used first.

        Begins after the position `after`, and stops once `excess` bytes are gone, None for all. Skips the
        digests, as text, in `keep`, and blobs that are being read. Without `remove` nothing is removed, and
        the result is what would be.
        """
        evicted: list[EvictedBlob] = []
        left = math.inf if excess is None else excess
        resume_after, all_kept = after, True
        for position, row in self._rows_by_last_use(before, after):
            if left <= 0:
                break
            if row.digest in keep:
                resume_after = position if all_kept else resume_after
                continue
            all_kept = False
            if self._evict_row(row, used=False, remove=remove):
                evicted.append(row.evicted(EvictionReason.ROOM))
                left -= row.size
        return Eviction(evicted, resume_after)

    def evict_in_use(
        self, since: float, excess: int, keep: Container[str], small: int, *, remove: bool = True
    ) -> list[EvictedBlob]:
        """Evict as `evict` blobs last used since a moment.

        Among the first ROWS of them those above `small` bytes go first.
        """
        evicted: list[EvictedBlob] = []
        rows = (row for _, row in self._rows_by_last_use(math.inf, (since, 0)))
        first_batch = sorted(islice(rows, ROWS), key=lambda row: row.size <= small)
        for row in chain(first_batch, rows):
            if excess <= 0:
                break
            if row.digest not in keep and self._evict_row(row, used=True, remove=remove):
                evicted.append(row.evicted(EvictionReason.USED))
                excess -= row.size
        return evicted

    def evict_one(self, digest: str, *, remove: bool = True) -> bool:
        """Evict one blob, by its digest as text, unless a process reads it; return whether it is gone.

        Without `remove` it stays, and the result is whether it would go.
        """
        row = None if self.retention.retained_among([digest]) else self.row(digest)
        return row is not None and self._evict_row(row, used=False, remove=remove)

    def _evict_row(self, row: BlobRow, *, used: bool, remove: bool) -> bool:
        """Remove a blob unless a process reads it; a blob in use (`used`) only if certainly none does.

        A process that has looked the blob up but not opened it gets a miss; one that has opened it can read
        on.
        """
        if not AdoptingDisk.is_own_name(row.name):  # no file that was adopted: it stays
            if remove:
                self._delete_row(row)
            return False
        with lock_if_unread(self.folder / row.name) as idle:
            if idle is False or (used and not idle):
                return False
            if not remove:
                return True
            # Entry first, file second (invariant 8).
            if not self._delete_row(row, EVICTABLE):
                return False
            self._disk().remove(row.name)
            return True

    def _delete_row(self, row: BlobRow, condition: str = "1") -> bool:
        """Remove an entry; return whether it was there. If a new entry has another file, it stays."""
        statement = f"DELETE FROM Cache WHERE key = ? AND filename = ? AND {condition}"  # noqa: S608  # ours
        return bool(self._cache._sql(statement, (row.digest, row.name)).rowcount)

    def _rows_by_last_use(self, before: float, last: Position) -> Iterator[tuple[Position, BlobRow]]:
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

    def remove(self, digest: Digest) -> bool:
        """Remove a blob, unless it is retained; return whether it is gone by that."""
        row = self.row(str(digest))
        if row is None or not self._delete_row(row, EVICTABLE):
            return False
        self._disk().remove(row.name)
        return True

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
        self.database.reserve_log()
        return missing

    def stats(self) -> tuple[int, int]:
        """Return bytes and number of blobs."""
        return self.size(), len(self._cache)

    def check(self) -> list[str]:
        """Return the inconsistencies between entries and files as sentences; none if all is well."""
        with warnings.catch_warnings():
            # diskcache gives its findings as warnings, which must not be filtered or raised here.
            warnings.simplefilter("always")
            found = self._cache.check()
        return [str(each.message) for each in found if each.category is not diskcache.EmptyDirWarning]

    def close(self) -> None:
        """Close this thread's connection."""
        self.database.close()

    def _disk(self) -> AdoptingDisk:
        disk: AdoptingDisk = self._cache.disk
        return disk

    def _quarantine_unreadable(self, digest: Digest, error: OSError) -> None:
        """Quarantine a file that the disk cannot read; raise `error` if the file is not the cause."""
        if error.errno not in UNREADABLE_ERRNOS:
            raise error
        self.quarantine(digest)
