"""Room for an import: looked for before anything is evicted for it."""

from collections.abc import Mapping

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory


class ImportRoom(Struct, frozen=True):
    """Room that an import takes, in bytes.

    `new`: blobs that are not here; `pinned`: by pins, with those of the import if it pins; `allowed`: in the
    cache as a whole; `evicted`: what goes for the import, at the least.
    """

    new: int
    pinned: int
    allowed: int
    evicted: int

    @property
    def fits(self) -> bool:
        """Return whether the import can be kept beside all that is pinned."""
        return self.new + self.pinned <= self.allowed


def room_for(folder: CacheDirectory, blobs: Mapping[Digest, int], *, pin: bool) -> ImportRoom:
    """Return the room that these blobs take; with `pin` those that are here count as pinned too."""
    here = folder.blobs.table.sizes_and_last_use(map(str, blobs))
    new = sum(size for digest, size in blobs.items() if str(digest) not in here)
    kept = folder.pins.pinned_sizes()
    pinned = sum(kept.values()) - sum(size for digest, size in blobs.items() if str(digest) in kept)
    if pin:
        pinned += sum(size for size, _ in here.values())
    else:
        pinned += sum(here[digest][0] for digest in kept.keys() & here.keys())
    return ImportRoom(new, pinned, folder.evictor.size_limit(), folder.evictor.excess(new) if new else 0)
