"""The list of what a folder has, for an export that carries what is lacking."""

from collections.abc import Iterator

from mirror.bundle.have import HaveList
from mirror.oci.digest import ENCODED
from mirror.store.cache_dir import CacheDirectory

# Entries to read at a time.
ROWS = 10_000


def have(folder: CacheDirectory) -> HaveList:
    """Return the digests of all blobs that are here. Each was verified before it was kept (invariant 1)."""
    return HaveList.of_encoded(_encoded(folder))


def _encoded(folder: CacheDirectory) -> Iterator[str]:
    """Yield the digits of each digest; without rows that are not ours, which `verify` reports."""
    after = ""
    while digests := folder.blobs.table.digests(after, ROWS):
        for each in digests:
            algorithm, _, encoded = each.partition(":")
            if algorithm in ENCODED and ENCODED[algorithm].fullmatch(encoded):
                yield encoded
        after = digests[-1]
