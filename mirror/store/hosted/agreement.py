"""Agreement of the classes of blobs with the links of hosted repositories.

A blob that a hosted repository links must be retained: nothing that this program does leaves one that is
not, but a database that was put back from a copy may. A blob that is retained without a link is what a crash
between two steps of a push leaves, and takes room.
"""

import time
from collections.abc import Iterator

from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.unnamed import UNNAMED_SECONDS, UnnamedBlobs
from mirror.store.metadata.closure import digest_or_none
from mirror.store.metadata.index import ROWS


class Agreement:
    """The check of one cache folder. Every method blocks."""

    def __init__(self, folder: CacheDirectory) -> None:
        self._folder = folder
        self._retention = folder.blobs.retention
        self._index = HostedIndex(folder)

    def evictable(self, *, repair: bool) -> Iterator[str]:
        """Yield the digests of blobs that are here, linked and evictable; with `repair` they are retained."""
        for repository in UnnamedBlobs(self._folder).repositories():
            after = ""
            while links := self._folder.index.links(repository, after, ROWS):
                after = str(links[-1][0])
                here = self._folder.blobs.table.sizes_and_last_use(str(digest) for digest, _, _ in links)
                wrong = sorted(here.keys() - self._retention.retained_among(here))
                if repair:
                    self._retention.retain(wrong)
                yield from wrong

    def unlinked(self, *, repair: bool, now: float | None = None) -> Iterator[Digest]:
        """Yield retained blobs, an hour old, that no hosted repository links; `repair` makes them evictable.

        None where no hosted repository has a link: the index is lost, and what was pushed may be rescued.
        """
        if next(UnnamedBlobs(self._folder).repositories(), None) is None:
            return
        before, after = (time.time() if now is None else now) - UNNAMED_SECONDS, ""
        while digests := self._retention.retained_after(after, ROWS):
            after = digests[-1]
            used = self._folder.blobs.table.sizes_and_last_use(digests)
            old = {each for each in digests if each in used and used[each][1] < before}
            found = [
                digest
                for each in sorted(old - self._index.names.linked_among(old))
                if (digest := digest_or_none(each)) is not None
            ]
            if repair:
                self._index.release(found)
            yield from found
