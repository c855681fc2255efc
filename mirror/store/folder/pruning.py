"""The bound of the index: above it, rows about content that is not here go, oldest first.

A manifest has a link for each digest that it names, whether that is fetched or not, and the links stay when
the manifest is evicted. Such a link saves one HEAD request to the upstream, and no more. Links to what is
here, everything of hosted registries, tags and repositories stay: the cache's quota, those of the registries
and the upstreams bound them. SQLite gives the room back.
"""

import time
from collections.abc import Callable

from mirror.store.blobs.blobs import BlobStore
from mirror.store.metadata.hosted_names import HostedNames
from mirror.store.metadata.index import Index
from mirror.store.metadata.pruned_rows import oldest_about_digests, remove_rows

# Bytes that the index may have: for any cache, and for each blob that is here.
BASE_BYTES = 64 * 1024 * 1024
BYTES_PER_BLOB = 4 * 1024

# A client that pulls an image asks for what its manifest named within this time, in seconds.
IN_USE = 600.0

# Batches of rows that one run looks at, and the pause, in seconds, after a run that has seen all rows.
BATCHES = 100
PAUSE = 600.0


class IndexPruner:
    """Keeps one index within its bound, a part at each run. For one thread at a time; the methods block."""

    def __init__(self, index: Index, blobs: BlobStore, clock: Callable[[], float] = time.time) -> None:
        self._index = index
        self._blobs = blobs
        self._names = HostedNames(index)
        self._clock = clock
        self._after = 0
        self._paused_until = 0.0

    def run(self) -> int:
        """Remove what exceeds the bound, as far as one run may; return the number of rows removed."""
        removed, now = 0, self._clock()
        if now < self._paused_until:
            return 0
        for _ in range(BATCHES):
            if self._index.database.size() <= index_limit(self._blobs):
                break
            rows = oldest_about_digests(self._index, self._after, now - IN_USE)
            if not rows:
                self._after, self._paused_until = 0, now + PAUSE
                break
            self._after = rows[-1].number
            here = self._blobs.table.sizes_and_last_use({each.digest for each in rows})
            hosted = tuple(f"{name}/" for name in self._names.all())
            removed += remove_rows(
                self._index,
                [
                    each
                    for each in rows
                    if each.digest not in here and not each.key.partition(":")[2].startswith(hosted)
                ],
            )
        return removed


def index_limit(blobs: BlobStore) -> int:
    """Return how many bytes the index may have."""
    _, count = blobs.stats()
    return BASE_BYTES + BYTES_PER_BLOB * count
