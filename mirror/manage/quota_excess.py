"""Quota excess: the removals of `gc` from a cache over its quota, in a real run and in a dry run alike.

A running mirror evicts blobs that have not been used for long before it gives up an interrupted download,
because a client may come back for it. `gc` works the other way round: an operator who asks for room gets it
from downloads that nobody continues, and complete blobs stay if that suffices.
"""

import math
from collections.abc import Collection
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import SMALL_BYTES, EvictedBlob, EvictionReason
from mirror.store.blobs.quota import IN_USE
from mirror.store.cache_dir import CacheDirectory
from mirror.store.eviction import EvictionGuard
from mirror.store.orphans import Orphan, discard, old_partials


class Freed(Struct):
    """Bytes that a dry run would have freed by now; `accounted` count against the quota, others do not."""

    accounted: int = 0
    unaccounted: int = 0


def quota_excess(
    folder: CacheDirectory,
    keep: Collection[Digest],
    keep_files: Collection[Path],
    freed: Freed,
    *,
    now: float,
    remove: bool,
) -> tuple[list[Orphan], list[EvictedBlob]]:
    """Return the interrupted downloads and the blobs that go; with `remove` they are gone.

    1. blobs that nobody has used for longer than cache.max_age
    2. interrupted downloads, those that were interrupted first
    3. blobs, least recently used first; those of the last moments (IN_USE) after all others

    Nothing of `keep` or `keep_files`, nothing that is pinned or being read, and no running download.
    """
    with folder.evictor.lock():
        guard = EvictionGuard(keep, folder.pins)
        before = now - IN_USE
        old = _too_old(folder, guard, now, remove=remove)
        if not remove:
            freed = Freed(freed.accounted + sum(blob.size for blob in old), freed.unaccounted)
            guard = EvictionGuard([*keep, *(blob.digest for blob in old)], folder.pins)
        excess = _excess(folder, freed)
        partials = _partials(folder, keep_files, before, excess, remove=remove)
        excess -= sum(partial.size for partial in partials)
        evictions = folder.blobs.evictions
        unused = evictions.evict(before, excess, guard, remove=remove).evicted if excess > 0 else []
        excess -= sum(blob.size for blob in unused)
        used = evictions.evict_in_use(before, excess, guard, SMALL_BYTES, remove=remove)
        if remove:
            folder.pins.write_journal()
    return partials, [*old, *unused, *used]


def _too_old(folder: CacheDirectory, guard: EvictionGuard, now: float, *, remove: bool) -> list[EvictedBlob]:
    max_age = folder.evictor.quota.max_age
    if max_age == math.inf:
        return []
    evicted = folder.blobs.evictions.evict(now - max(max_age, IN_USE), None, guard, remove=remove).evicted
    return [replace(blob, reason=EvictionReason.AGE) for blob in evicted]


def _excess(folder: CacheDirectory, freed: Freed) -> int:
    room = folder.evictor.room()
    free = room.free + freed.accounted + freed.unaccounted
    return folder.evictor.quota.excess(replace(room, used=room.used - freed.accounted, free=free))


def _partials(
    folder: CacheDirectory, keep: Collection[Path], before: float, excess: int, *, remove: bool
) -> list[Orphan]:
    """Return interrupted downloads until they have taken `excess` bytes, oldest first."""
    chosen: list[Orphan] = []
    found = [each for each in old_partials(folder.partials, before, remove=False) if each.path not in keep]
    for partial in sorted(found, key=lambda partial: partial.modified):
        if excess <= 0:
            break
        if not remove or discard(partial.path):
            chosen.append(partial)
            excess -= partial.size
    return chosen
