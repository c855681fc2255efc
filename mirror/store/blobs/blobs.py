"""The blob store: verified files by digest. diskcache keeps their entries.

Synchronous: everything here runs in a disk thread.
"""

import errno
import os
import stat
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import diskcache

from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import KEPT_MODE, AdoptingDisk, VerifiedFile
from mirror.store.blobs.entries import OpenBlob, Origin
from mirror.store.blobs.evictions import BlobEvictions
from mirror.store.blobs.quarantine import Quarantine
from mirror.store.lock import lock_shared
from mirror.store.metadata.blob_table import POLICY, BlobRow, BlobTable
from mirror.store.metadata.database import BUSY_SECONDS, Database
from mirror.store.metadata.retention import SCHEMA, Retention
from mirror.util.callbacks import ignore
from mirror.util.durable import open_file
from mirror.util.log import get_logger

log = get_logger(__name__)


# The errors by which a disk says that it cannot read a file any more, or that a link is in the file's place.
UNREADABLE_ERRNOS = frozenset({errno.EIO, errno.EUCLEAN, errno.ENODATA, errno.ELOOP})

# Bytes of one read whose content is not used.
READ_BYTES = 1024 * 1024


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
        self.table = BlobTable(self.database)
        self.retention = Retention(self.database)
        self.evictions = BlobEvictions(folder, self.database, self.table, self.retention)

    @property
    def _cache(self) -> diskcache.Cache:
        return self.database.cache

    def has(self, digest: Digest) -> bool:
        """Return whether there is an entry."""
        return str(digest) in self._cache

    def origin(self, digest: Digest) -> Origin | None:
        """Return how a blob came; None if there is no entry."""
        tag = self.table.tag(digest)
        return None if tag is None else Origin.of(tag)

    def open(self, digest: Digest) -> OpenBlob | None:
        """Open a blob. A missing file, or one of the wrong size, counts as a miss (failure table)."""
        found = self._cache.get(str(digest), tag=True)
        path, size = found
        if path is None:
            row = self.table.row(str(digest))
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
        row = self.table.row(str(digest))
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

    def drop_entry(self, row: BlobRow) -> None:
        """Remove an entry whose file is wrong or missing, unless it names another file by now; the file
        stays.

        Copies in memory may be intact, but they would keep the blob from being fetched again: they are
        dropped too.
        """
        if self.table.delete(row):
            self.on_entry_dropped()

    def add_entry(self, row: BlobRow) -> None:
        """Add an entry for a file that is in its place and was verified."""
        self.table.add(row)
        self.retention.note_added([row.digest])

    def remove(self, digest: Digest) -> bool:
        """Remove a blob, unless it is retained; return whether it is gone by that."""
        row = self.table.row(str(digest))
        if row is None or not self.table.delete(row, evictable=True):
            return False
        self._disk().remove(row.name)
        return True

    def stats(self) -> tuple[int, int]:
        """Return bytes and number of blobs."""
        return self.table.size(), len(self._cache)

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
