"""Evictions from the blob store: which go first, and what is never removed."""

import math
from collections.abc import Container
from itertools import chain, islice
from pathlib import Path

from mirror.store.blobs.diskcache_disk import AdoptingDisk
from mirror.store.blobs.entries import EvictedBlob, Eviction, EvictionReason, evicted_blob
from mirror.store.lock import lock_if_unread
from mirror.store.metadata.blob_table import ROWS, START, BlobRow, BlobTable, Position
from mirror.store.metadata.database import Database
from mirror.store.metadata.retention import Retention


class BlobEvictions:
    """Evictions from one blob store. Every method blocks."""

    def __init__(self, folder: Path, database: Database, table: BlobTable, retention: Retention) -> None:
        self._folder = folder
        self._database = database
        self._table = table
        self._retention = retention

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
        for position, row in self._table.by_last_use(before, after):
            if left <= 0:
                break
            if row.digest in keep:
                resume_after = position if all_kept else resume_after
                continue
            all_kept = False
            if self._evict_row(row, used=False, remove=remove):
                evicted.append(evicted_blob(row, EvictionReason.ROOM))
                left -= row.size
        return Eviction(evicted, resume_after)

    def evict_in_use(
        self, since: float, excess: int, keep: Container[str], small: int, *, remove: bool = True
    ) -> list[EvictedBlob]:
        """Evict as `evict` blobs last used since a moment.

        Among the first ROWS of them those above `small` bytes go first.
        """
        evicted: list[EvictedBlob] = []
        rows = (row for _, row in self._table.by_last_use(math.inf, (since, 0)))
        first_batch = sorted(islice(rows, ROWS), key=lambda row: row.size <= small)
        for row in chain(first_batch, rows):
            if excess <= 0:
                break
            if row.digest not in keep and self._evict_row(row, used=True, remove=remove):
                evicted.append(evicted_blob(row, EvictionReason.USED))
                excess -= row.size
        return evicted

    def evict_one(self, digest: str, *, remove: bool = True) -> bool:
        """Evict one blob, by its digest as text, unless a process reads it; return whether it is gone.

        Without `remove` it stays, and the result is whether it would go.
        """
        row = None if self._retention.retained_among([digest]) else self._table.row(digest)
        return row is not None and self._evict_row(row, used=False, remove=remove)

    def _evict_row(self, row: BlobRow, *, used: bool, remove: bool) -> bool:
        """Remove a blob unless a process reads it; a blob in use (`used`) only if certainly none does.

        A process that has looked the blob up but not opened it gets a miss; one that has opened it can read
        on.
        """
        if not AdoptingDisk.is_own_name(row.name):  # no file that was adopted: it stays
            if remove:
                self._table.delete(row)
            return False
        with lock_if_unread(self._folder / row.name) as idle:
            if idle is False or (used and not idle):
                return False
            if not remove:
                return True
            # Entry first, file second (invariant 8).
            if not self._table.delete(row, evictable=True):
                return False
            self._database.cache.disk.remove(row.name)
            return True
