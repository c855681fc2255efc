"""The blob store: verified files by digest, with diskcache keeping the books and the quota.

Synchronous: everything here runs in a disk thread.
"""

import errno
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import diskcache
from diskcache.core import MODE_BINARY

from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import POLICY, AdoptingDisk, VerifiedFile
from mirror.store.database import BUSY_SECONDS, Database
from mirror.store.lock import lock_if_unread, lock_shared
from mirror.util.log import get_logger

log = get_logger(__name__)


# What a disk says of a file that it cannot give any more.
BAD = frozenset({errno.EIO, errno.EUCLEAN, errno.ENODATA})

# One read when nothing is done with the bytes, in bytes.
READ = 1024 * 1024
# How many rows are looked at in one go: no list is long, and no thread is gone for long.
ROWS = 500


@dataclass(frozen=True, slots=True)
class OpenBlob:
    """A blob ready to be sent; whoever holds it closes `file`. `size` in bytes."""

    file: BinaryIO
    size: int


class EvictionReason(StrEnum):
    """Blobs are evicted to make room, even those in use where there is too little of it, or for their age."""

    ROOM = "room"
    USED = "used"
    AGE = "age"


@dataclass(frozen=True, slots=True)
class EvictedBlob:
    """A blob that was evicted. `size` in bytes."""

    digest: Digest
    size: int
    reason: EvictionReason = EvictionReason.ROOM


@dataclass(frozen=True, slots=True)
class BlobRow:
    """An entry: the digest as text, the file's name below the blobs, its size in bytes."""

    digest: str
    name: str
    size: int

    def evicted(self, why: EvictionReason) -> EvictedBlob:
        return EvictedBlob(Digest.parse(self.digest), self.size, why)


# A place in the order of last use: the moment, and what tells those of one moment apart.
Position = tuple[float, int]
START: Position = (-math.inf, 0)


@dataclass(frozen=True, slots=True)
class Eviction:
    """What is gone; up to and including `passed` there is nothing but what was to be kept."""

    evicted: list[EvictedBlob]
    resume_after: Position


class BlobStore:
    """`folder/cache.db` and the files it names."""

    def __init__(self, folder: Path, quarantine: Path) -> None:
        self.folder = folder
        self._quarantine = quarantine
        self.on_entry_dropped: Callable[[], object] = bool  # called when what was thought to be here is not
        self.database = Database(
            folder,
            timeout=BUSY_SECONDS,
            disk=AdoptingDisk,
            eviction_policy=POLICY,
            size_limit=sys.maxsize,
            cull_limit=0,  # `evict` chooses, because diskcache knows neither pins nor what is in use
        )

    @property
    def _cache(self) -> diskcache.Cache:
        return self.database.cache

    def has(self, digest: Digest) -> bool:
        return str(digest) in self._cache

    def open(self, digest: Digest) -> OpenBlob | None:
        """The blob, or None. A file that is gone or has not its size counts as a miss (failure table)."""
        found = self._cache.get(str(digest), tag=True)
        path, size = found
        if path is None:
            return None
        try:
            file = open(path, "rb")  # noqa: SIM115  # handed to the caller
        except FileNotFoundError:
            self.drop_entry(BlobRow(str(digest), str(path.relative_to(self.database.folder)), int(size)))
            return None
        except OSError as error:
            self._unreadable(digest, error)
            return None
        lock_shared(file.fileno())
        if os.fstat(file.fileno()).st_size != int(size):
            file.close()
            self.quarantine(digest)
            return None
        return OpenBlob(file, int(size))

    def read(self, digest: Digest, limit: int) -> bytes | None:
        """The whole of a blob of up to `limit` bytes."""
        blob = self.open(digest)
        if blob is None:
            return None
        with blob.file:
            try:
                return blob.file.read() if blob.size <= limit else None
            except OSError as error:
                self._unreadable(digest, error)
                return None

    def quarantine_if_unreadable(self, digest: Digest) -> None:
        """It could not be read to its end: set it aside, if that is because of its file."""
        blob = self.open(digest)
        if blob is None:
            return
        with blob.file:
            try:
                while blob.file.read(READ):
                    pass
            except OSError as error:
                self._unreadable(digest, error)

    def quarantine(self, digest: Digest) -> None:
        """Quarantine a file that is not what its name says; from now on the blob is a miss."""
        log.error("blob corrupt on disk, set aside", digest=str(digest), quarantine=str(self._quarantine))
        row = self.row(str(digest))
        if row is None:
            return
        # Entry first, file second (invariant 8).
        self.drop_entry(row)
        self.quarantine_file(self.database.folder / row.name)

    def quarantine_file(self, path: Path) -> None:
        """Move a file out of the store; whoever wants to can look at it there."""
        if not self._quarantine.is_dir():
            self._quarantine.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0:  # what root's command makes is the mirror's own user's
                owner = os.stat(self._quarantine.parent)
                os.chown(self._quarantine, owner.st_uid, owner.st_gid)
        with suppress(FileNotFoundError):
            os.rename(path, self._quarantine / path.name)

    def add(self, *verified: VerifiedFile) -> None:
        """Adopt files that were verified, in one transaction.

        Made durable first, where that is asked for, so that a name never outlives its bytes.
        """
        for each in verified:
            if each.durable:
                with open(each.path, "rb") as file:
                    os.fdatasync(file.fileno())
            os.chmod(each.path, 0o400)
        with self._disk().moving(), self._cache.transact():
            for each in verified:
                # The size is in the entry's tag too: get() answers with the tag but not with the size.
                self._cache.add(str(each.digest), each, tag=str(each.size))

    def rows(self, after: str, limit: int) -> list[BlobRow]:
        """Up to `limit` entries in the order of their digests, after the one of `after`."""
        found = self._cache._sql(
            "SELECT key, filename, size FROM Cache WHERE key > ? ORDER BY key LIMIT ?", (after, limit)
        ).fetchall()
        return [BlobRow(str(key), str(name), int(size)) for key, name, size in found]

    def row(self, digest: str) -> BlobRow | None:
        found = self._cache._sql("SELECT key, filename, size FROM Cache WHERE key = ?", (digest,)).fetchone()
        return None if found is None else BlobRow(str(found[0]), str(found[1]), int(found[2]))

    def drop_entry(self, row: BlobRow) -> None:
        """Remove an entry whose file is wrong or gone, unless it has got another since; the file stays.

        What is in memory of it may well be right, and would keep it from being fetched anew.
        """
        if self._removed(row):
            self.on_entry_dropped()

    def add_entry(self, row: BlobRow) -> None:
        """An entry for a file that is in its place and was verified."""
        self._cache._sql(
            "INSERT OR IGNORE INTO Cache"
            " (key, raw, store_time, access_time, access_count, tag, size, mode, filename)"
            " VALUES (?, 1, ?, ?, 0, ?, ?, ?, ?)",
            (row.digest, time.time(), time.time(), str(row.size), row.size, MODE_BINARY, row.name),
        )

    def evict(
        self,
        before: float,
        excess: int | None,
        keep: Container[str],
        after: Position = START,
        *,
        remove: bool = True,
    ) -> Eviction:
        """Remove what was last used before a moment (seconds since the epoch), oldest first.

        Until `excess` bytes are gone, None for all of it; never what is in `keep`, by its digest as text, nor
        what somebody reads. Begins behind `after`. With `remove` False nothing is removed: what would be.
        """
        gone: list[EvictedBlob] = []
        left = math.inf if excess is None else excess
        passed, passing = after, True
        for position, row in self._oldest(before, after):
            if left <= 0:
                break
            if row.digest in keep:
                passed = position if passing else passed
                continue
            passing = False
            if self._evicted(row, used=False, remove=remove):
                gone.append(row.evicted(EvictionReason.ROOM))
                left -= row.size
        return Eviction(gone, passed)

    def evict_in_use(
        self, since: float, excess: int, keep: Container[str], small: int, *, remove: bool = True
    ) -> list[EvictedBlob]:
        """As `evict`, of what was used since a moment; of the first ROWS what is above `small` first."""
        gone: list[EvictedBlob] = []
        rows = (row for _, row in self._oldest(math.inf, (since, 0)))
        few = sorted(islice(rows, ROWS), key=lambda row: row.size <= small)
        for row in chain(few, rows):
            if excess <= 0:
                break
            if row.digest not in keep and self._evicted(row, used=True, remove=remove):
                gone.append(row.evicted(EvictionReason.USED))
                excess -= row.size
        return gone

    def _evicted(self, row: BlobRow, *, used: bool, remove: bool) -> bool:
        """Remove it, unless somebody reads it; what was `used` only if it is certain that nobody does.

        Who has looked it up by now, and not opened it, does not find it; who has opened it can read it.
        """
        with lock_if_unread(self.folder / row.name) as idle:
            if idle is False or (used and not idle):
                return False
            if not remove:
                return True
            # Entry first, file second (invariant 8).
            if not self._removed(row):
                return False
            self._disk().remove(row.name)
            return True

    def _removed(self, row: BlobRow) -> bool:
        """Whether there was this entry, gone now. One with another file has come since, and stays."""
        asked = "DELETE FROM Cache WHERE key = ? AND filename = ?"
        return bool(self._cache._sql(asked, (row.digest, row.name)).rowcount)

    def _oldest(self, before: float, last: Position) -> Iterator[tuple[Position, BlobRow]]:
        """What was last used before a moment, in order, read a few at a time."""
        while True:
            rows = self._cache._sql(
                "SELECT access_time, rowid, key, filename, size FROM Cache"
                " WHERE (access_time, rowid) > (?, ?) AND access_time < ?"
                " ORDER BY access_time, rowid LIMIT ?",
                (*last, before, ROWS),
            ).fetchall()
            for moment, number, key, name, size in rows:
                yield (moment, number), BlobRow(key, name, size)
            if len(rows) < ROWS:
                return
            last = rows[-1][:2]

    def size(self) -> int:
        """Bytes of all blobs."""
        return int(self._cache.reset("size"))

    def sizes_and_last_use(self, digests: Iterable[str]) -> dict[str, tuple[int, float]]:
        """Size, and when last used (seconds since the epoch), of those that are here."""
        found: dict[str, tuple[int, float]] = {}
        asked = list(digests)
        for start in range(0, len(asked), ROWS):
            some = asked[start : start + ROWS]
            marks = ",".join("?" * len(some))
            rows = self._cache._sql(
                f"SELECT key, size, access_time FROM Cache WHERE key IN ({marks})",  # noqa: S608  # marks only
                some,
            )
            found.update({key: (size, used) for key, size, used in rows})
        return found

    def entries(self, before: float) -> Iterator[tuple[str, int, str]]:
        """Digest, size and file name of all that was last used before a moment, by digest."""
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
        """Of the files of these, up to ROWS of them."""
        asked = list(digests)
        marks = ",".join("?" * len(asked))
        rows = self._cache._sql(f"SELECT filename FROM Cache WHERE key IN ({marks})", asked)  # noqa: S608
        return {name for (name,) in rows}

    def remove(self, digest: Digest) -> bool:
        """Whether it was here."""
        return bool(self._cache.delete(str(digest)))

    def touch(self, used: Mapping[Digest, float]) -> None:
        """Note when blobs were last used (seconds since the epoch), for the quota's sake.

        A few at a time: whoever wants to write waits for one transaction, not for all that a crowd has used.
        """
        moments = iter(used.items())
        while some := list(islice(moments, ROWS)):
            with self._cache.transact():
                for digest, moment in some:
                    self._cache._sql("UPDATE Cache SET access_time = ? WHERE key = ?", (moment, str(digest)))

    def stats(self) -> tuple[int, int]:
        """Bytes and number of blobs."""
        return self.size(), len(self._cache)

    def check(self) -> list[str]:
        """What is inconsistent between entries and files, as sentences; empty when all is well."""
        with warnings.catch_warnings():
            # diskcache collects its findings as warnings, which must not be filtered or raised here.
            warnings.simplefilter("always")
            found = self._cache.check()
        return [str(each.message) for each in found if each.category is not diskcache.EmptyDirWarning]

    def close(self) -> None:
        """Close this thread's connection."""
        self.database.close()

    def _disk(self) -> AdoptingDisk:
        disk: AdoptingDisk = self._cache.disk
        return disk

    def _unreadable(self, digest: Digest, error: OSError) -> None:
        """Set aside what the disk does not give; raises `error` where that is not the file's fault."""
        if error.errno not in BAD:
            raise error
        self.quarantine(digest)
