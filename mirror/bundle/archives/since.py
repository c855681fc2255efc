"""Digests that older archives carry, for an export that leaves out what they have."""

from collections.abc import Iterator
from pathlib import Path

from mirror.bundle.archives.opening import open_archive
from mirror.bundle.plan import Slice
from mirror.oci.digest import Digest


def digests_in(paths: list[Path]) -> Iterator[Digest]:
    """Yield the digests of all contents of these archives.

    Digests are those of the names: the receiver proved the contents when it imported them. Large contents are
    not read. A blob in pieces counts if all of its pieces are there, so the parts of a bundle are to be given
    together. Raises BundleError for an archive that is cut short.
    """
    pieces: dict[Digest, list[Slice]] = {}
    for path in paths:
        with open_archive(path) as archive:
            for found in archive.contents():
                if found.slice.whole:
                    yield found.digest
                else:
                    pieces.setdefault(found.digest, []).append(found.slice)
    yield from (digest for digest, found in pieces.items() if _is_complete(found))


def _is_complete(pieces: list[Slice]) -> bool:
    end = 0
    for each in sorted(pieces):
        if each.offset > end:
            return False
        end = max(end, each.offset + each.length)
    return end == pieces[0].size
