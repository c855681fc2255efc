"""Eviction: removes verified blobs to keep the cache within its quota. This module decides what goes.

Who evicts, and when:

    housekeeping        one process of all on the folder, every few seconds (`Store.run_housekeeping`);
                        another one only to give back the headroom that its clients earned
    a running fill      the process that fills, for the next ROOM_AHEAD bytes (`Store.evict_excess`)
    an adoption         the process that added a blob, if the quota is exceeded now (`Store.evict_excess`)
    a slow reader       the process that sends to it, before it ends the reader for keeping a blob beyond the
                        quota (`web.pace`, `BlobCache`)
    a full disk         the process whose write failed: as many bytes as the write needs (`Store.make_room`);
                        nothing for a blob that would not fit even then (`Evictor.make_room`)
    a rule's share      the process that fills a blob of a repository beyond it: of that repository's own
                        blobs only (`store.shares`)
    registry-mirror gc  the command, beside a running mirror or without one; its order is its own, partials
                        before blobs (`manage.quota_excess`)

What an eviction removes, in this order, until enough bytes are free:

    1  blobs that were not used for `cache.max_age`, all of them
    2  partials as in 4 of blobs that exceed the quota alone, so that no blob is evicted for one of them
    3  blobs that were not used for IN_USE seconds, least recently used first
    4  partials that no process fills and that were not written for IN_USE seconds
    5  blobs that were used more recently, least recently used first; among the first 500 (`blobs.ROWS`)
       those above `small_bytes` go before the small ones

and, except on a full disk, some blobs that were not used for UNUSED_SECONDS, least recently used first, so
that prefetches find room (`blobs.headroom`).

What no eviction removes: retained blobs (`metadata.retention`), pinned content, blobs that the caller just
added, blobs that any process reads (a shared lock on the file; `web.pace` ends readers that keep too much for
too long), partials that a process fills. Content also goes without regard to the quota: by `registry-mirror
rm` and `gc` (what no image names), by housekeeping (partials not resumed for a week), and by quarantine
(`BlobStore.quarantine`, a corrupt file).

A fill reserves nothing: a partial counts with the bytes that were written, and room is made as bytes come. A
size is only a number in a manifest until they do. A blob that could not be kept even if all that may go went
(`Evictor.can_hold`) is passed through before anything goes, and a prefetch evicts nothing: it starts only
where it fits, in the headroom of a full cache.

An eviction holds one lock among all processes, on the file `evicting`; `pin`, `unpin` and `rm` take it too.
"""

import math
import os
import shutil
import time
from collections.abc import Collection, Container, Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from msgspec.structs import replace

from mirror.oci.digest import Digest
from mirror.store.blobs import quota
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.entries import SMALL_BYTES, EvictedBlob, EvictionReason
from mirror.store.blobs.headroom import UNUSED_SECONDS, Allowance, headroom
from mirror.store.blobs.quota import IN_USE, DiskRoom, Quota, Shortage
from mirror.store.invalidation import Epoch
from mirror.store.lock import data_path, exclusive_lock
from mirror.store.metadata.blob_table import START
from mirror.store.orphans import discard, old_partials
from mirror.store.pins.pins import Pins
from mirror.util.durable import try_allocate
from mirror.util.log import get_logger

log = get_logger(__name__)

# How long, in seconds, an eviction skips the blobs that an earlier one found pinned. Nothing gets in front of
# them in the order of last use, unless a clock was set back.
SKIP_SECONDS = 60.0


class EvictionGuard(Container[str]):
    """The digests, as text, that an eviction must keep: given ones, and all that is pinned when asked."""

    def __init__(self, digests: Iterable[Digest], pins: Pins) -> None:
        self._digests = {str(each) for each in digests}
        self._pins = pins

    def __contains__(self, digest: object) -> bool:
        return digest in self._digests or digest in self._pins.pinned_sizes()


class Evictor:
    """The quota of one cache folder, and evictions by it. Any thread may call; all methods block."""

    def __init__(self, folder: Path, blobs: BlobStore, pins: Pins, epoch: Epoch, limits: Quota) -> None:
        self._folder = folder
        self._partials = folder / "partial"
        self._blobs = blobs
        self._pins = pins
        self._epoch = epoch
        self.quota = limits
        self.allowance = Allowance()
        # For which pins `_warn_of_pins` has looked, and whether they exceeded the quota.
        self._pins_checked = (0, False)
        # For which pins, until when (monotonic seconds) and up to where all blobs are known to be pinned.
        self._skipped = (0, 0.0, START)

    def lock(self) -> AbstractContextManager[None]:
        """Hold off evictions and changes of pins in all processes, as a context manager; waits."""
        return exclusive_lock(self._folder / "evicting")

    def room(self, filling: Digest | None = None) -> DiskRoom:
        """Return what the file system has and the cache uses; fills count with what they have written.

        Retained blobs do not count: no eviction makes room of them, and they have quotas of their own.

        The fill of `filling` counts with the next ROOM_AHEAD bytes of its size, too.
        """
        # In this order, a blob adopted meanwhile is missed, not counted twice; its own fill looks again.
        usage = shutil.disk_usage(self._folder)
        kept = self._blobs.table.size() - self._blobs.retention.totals()[0]
        written, ahead = 0, 0
        name = None if filling is None else data_path(filling, self._partials).name
        with os.scandir(self._partials) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # adopted or discarded since it was listed
                    status = entry.stat(follow_symlinks=False)
                    written += 512 * status.st_blocks
                    if entry.name == name:
                        ahead = min(max(0, status.st_size - 512 * status.st_blocks), quota.ROOM_AHEAD)
        return DiskRoom(usage.total, usage.free - ahead, kept + written + ahead)

    def excess(self, ahead: int = 0, filling: Digest | None = None) -> int:
        """Return how many bytes must go for `ahead` more bytes to be within the quota.

        The fill of `filling` counts with the next bytes that it will write (ROOM_AHEAD), too.
        """
        return self.quota.excess(self.room(filling), ahead)

    def can_hold(self, size: int) -> bool:
        """Return whether the quota allows a blob of `size` bytes, if all that is not pinned went for it."""
        room = self.room()
        allowed = self.quota.size_limit(room)
        if size <= allowed - room.used:
            return True
        pinned = self._pins.pinned_sizes()
        # The sizes that manifests name, and that are only looked up if they leave too little.
        if size <= allowed - sum(pinned.values()):
            return True
        here = self._blobs.table.sizes_and_last_use(pinned)
        counted = here.keys() - self._blobs.retention.retained_among(here)
        return size <= allowed - sum(here[digest][0] for digest in counted)

    def size_limit(self) -> int:
        """Return how many bytes the cache may hold."""
        return self.quota.size_limit(self.room())

    def shortage(self, margin: int = 0) -> Shortage | None:
        """Return the shortage if `min_free` leaves the cache `margin` bytes or less: nothing is kept then."""
        return self.quota.shortage(self.room(), self._folder, margin)

    def evict(
        self, keep: Collection[Digest] = (), need: int = 0, filling: Digest | None = None
    ) -> list[EvictedBlob]:
        """Evict in the order of the module's docstring until the quota is met and `need` bytes are free.

        `keep` stays. `need` counts whatever the quota allows; `filling` is that of `room`. Among the first
        blobs in use, those of up to SMALL_BYTES go last: they make little room, and are soon missed.
        """
        with self.lock():
            return self._evict(keep, need, filling)

    def make_room(self, missing: int) -> list[EvictedBlob]:
        """Evict on a full disk for the next of a blob's `missing` bytes, and some more; 0 for some room.

        Nothing goes if all of them could not come to fit: the fill would fail all the same. That is judged
        under the lock: what a running eviction removes is neither free nor evictable until it is gone.
        """
        with self.lock():
            if missing and not self._can_free(missing):
                return []
            return self._evict((), min(missing, quota.ROOM_AHEAD) + quota.MORE_ROOM, None)

    def _evict(self, keep: Collection[Digest], need: int, filling: Digest | None) -> list[EvictedBlob]:
        evicted: list[EvictedBlob] = []
        now, kept = time.time(), EvictionGuard(keep, self._pins)
        if self.quota.max_age < math.inf:
            old = self._evict_unused(now - max(self.quota.max_age, IN_USE), None, kept)
            evicted += (replace(each, reason=EvictionReason.AGE) for each in old)
        if self.excess(filling=filling) > 0:
            self._remove_hopeless_partials(now - IN_USE)
            if filling is not None and not self._would_fit(filling):
                filling = None  # another program has taken the room: it fails whatever goes
        if (excess := max(self.excess(filling=filling), self._bytes_lacking(need))) > 0:
            unused = self._evict_unused(now - IN_USE, excess, kept)
            evicted += unused
            if (left := excess - sum(each.size for each in unused)) > 0:
                left = self._remove_partials(now - IN_USE, left)
                evicted += self._blobs.evictions.evict_in_use(now - IN_USE, left, kept, SMALL_BYTES)
        if not need:
            evicted += self._make_headroom(now - UNUSED_SECONDS, kept, filling)
        self._warn_of_pins()
        with suppress(OSError):  # the journal cannot be written on a full disk
            self._pins.write_journal()
        return evicted

    def _make_headroom(self, before: float, kept: EvictionGuard, filling: Digest | None) -> list[EvictedBlob]:
        """Evict blobs last used before a moment for the headroom, as far as the allowance goes."""
        room = self.room(filling)
        share = headroom(self.quota.size_limit(room))
        # Without a reserve, the disk may be full of other files, and room on it is not the cache's to keep.
        lacking = self.quota.excess(room, share) if self.quota.min_free or self.quota.max_size else 0
        wanted = min(lacking, self.allowance.left(share))
        if wanted <= 0:
            return []
        evicted = self._evict_unused(before, wanted, kept)
        self.allowance.spend(sum(each.size for each in evicted))
        return evicted

    def can_free(self, need: int) -> bool:
        """Return whether `need` bytes are free, or would be once all that may go went. Nothing goes."""
        with self.lock():
            return self._can_free(need)

    def _can_free(self, need: int) -> bool:
        """Return whether `need` bytes are free, or would be once all that may go went. Nothing goes."""
        return self._can_evict(self._bytes_lacking(need))

    def _would_fit(self, filling: Digest) -> bool:
        """Return whether the rest of a fill is free on the disk, or would be once all that may go went."""
        try:
            status = data_path(filling, self._partials).stat()
        except FileNotFoundError:  # adopted meanwhile
            return True
        rest = max(0, status.st_size - 512 * status.st_blocks)
        return self._can_evict(rest - shutil.disk_usage(self._folder).free)

    def _can_evict(self, lacking: int) -> bool:
        if lacking <= 0:
            return True
        before, kept = time.time() - IN_USE, EvictionGuard((), self._pins)
        lacking -= sum(each.size for each in old_partials(self._partials, before, remove=False))
        unused = self._blobs.evictions.evict(before, lacking, kept, remove=False).evicted
        lacking -= sum(each.size for each in unused)
        used = self._blobs.evictions.evict_in_use(before, lacking, kept, 0, remove=False)
        return lacking <= sum(each.size for each in used)

    def _evict_unused(self, before: float, excess: int | None, kept: EvictionGuard) -> list[EvictedBlob]:
        """Evict blobs last used before a moment, without going through the oldest ones, pinned, each time."""
        pins, until, position = self._skipped
        now = time.monotonic()
        if pins != self._epoch.pin_changes() or now >= until:
            pins, until, position = self._epoch.pin_changes(), now + SKIP_SECONDS, START
        eviction = self._blobs.evictions.evict(before, excess, kept, position)
        self._skipped = (pins, until, eviction.resume_after)
        return eviction.evicted

    def _remove_hopeless_partials(self, before: float) -> None:
        """Remove interrupted fills of blobs that exceed the quota alone: no eviction makes room for those."""
        limit = self.size_limit()
        for partial in old_partials(self._partials, before, remove=False):
            if partial.reserved > limit:
                discard(partial.path)

    def _remove_partials(self, before: float, excess: int) -> int:
        """Remove interrupted fills until `excess` bytes are gone; return how many bytes are still to go."""
        partials, goal = old_partials(self._partials, before, remove=True), self.room().used - excess
        while (used := self.room().used) > goal and next(partials, None) is not None:
            pass
        return used - goal

    def _bytes_lacking(self, need: int) -> int:
        """Return how many bytes must go for `need` to be free. A file system's own quota shows by trying."""
        free = shutil.disk_usage(self._folder).free
        if need > free or not need:
            return max(0, need - free)
        try:
            try_allocate(self._partials, need)
        except OSError:
            return need
        return 0

    def _warn_of_pins(self) -> None:
        """Log, once per change of pins, that pinned content exceeds the quota.

        Pins by pattern and pins of the configuration may do so: a mirror that refused to start because of
        them would serve no client, and keep nothing.
        """
        now, (checked, exceeded) = self._epoch.pin_changes(), self._pins_checked
        if checked == now:
            return
        pinned, allowed = sum(self._pins.pinned_sizes().values()), self.size_limit()
        if pinned > allowed and not exceeded:
            to_do = "raise cache.max_size, lower cache.min_free, or pin less"
            log.warning("pins take more than there is room for", pinned=pinned, allowed=allowed, to_do=to_do)
        self._pins_checked = (now, pinned > allowed)
