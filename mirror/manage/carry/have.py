"""The list of what a folder has, for an export that carries what is lacking."""

from collections.abc import Iterator

from mirror.bundle.have import HaveList
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import digest_or_none

# Entries to read at a time.
ROWS = 10_000


def have(folder: CacheDirectory) -> HaveList:
    """Return the digests of all blobs that are here. Each was verified before it was kept (invariant 1)."""
    return HaveList.of(_digests(folder))


def _digests(folder: CacheDirectory) -> Iterator[Digest]:
    after = ""
    while rows := folder.blobs.rows(after, ROWS):
        yield from filter(None, (digest_or_none(each.digest) for each in rows))
        after = rows[-1].digest
