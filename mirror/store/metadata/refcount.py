"""Reference counts of blobs: how many repositories, of which upstreams, link a blob.

A blob that one repository alone links is of no use once that repository is removed.
"""

from collections.abc import Iterable

from msgspec import Struct

from mirror.store.metadata.index import LINKED, LINKS, ROWS, Index

# The key is link:<upstream>/<repository>@<digest>; SQLite counts characters from 1.
COUNT = f"""
SELECT {LINKED},
       substr(key, 6, instr(key, '/') - 6) AS upstream,
       count(*),
       min(substr(key, 6, instr(key, '@') - 6))
FROM Cache WHERE {LINKED} IN (%s) AND {LINKS}
GROUP BY 1, 2
"""  # noqa: S608  # ours

# Blobs that more repositories than this link (base images) are counted once in a scan with `memoise`.
MEMOISED_ABOVE = 8


class BlobUse(Struct, frozen=True):
    """The repositories of one upstream that link a digest: their number, and the first of them in order."""

    upstream: str
    links: int
    first_repository: str


class ReferenceCounts:
    """Counts links in the index. `memoise`: for full scans that change nothing; counts base images once."""

    def __init__(self, index: Index, *, memoise: bool = False) -> None:
        self._index = index
        self._memoise = memoise
        self._base_images: dict[str, list[BlobUse]] = {}

    def uses(self, digests: Iterable[str]) -> dict[str, list[BlobUse]]:
        """Return the uses by digest; no entry for a digest that no repository links."""
        found: dict[str, list[BlobUse]] = {}
        uncounted: list[str] = []
        for digest in digests:
            if digest in self._base_images:
                found[digest] = self._base_images[digest]
            else:
                uncounted.append(digest)
        for start in range(0, len(uncounted), ROWS):
            found |= self._count(uncounted[start : start + ROWS])
        return found

    def _count(self, digests: list[str]) -> dict[str, list[BlobUse]]:
        found: dict[str, list[BlobUse]] = {}
        for digest, upstream, links, first in self._index.database.query(
            COUNT % ",".join("?" * len(digests)), digests
        ):
            found.setdefault(digest, []).append(BlobUse(upstream, links, first))
        if self._memoise:
            self._base_images |= {each: uses for each, uses in found.items() if _sum(uses) > MEMOISED_ABOVE}
        return found

    def links(self, digests: Iterable[str]) -> dict[str, int]:
        """Return how many repositories link each digest."""
        return {digest: _sum(uses) for digest, uses in self.uses(digests).items()}


def _sum(uses: Iterable[BlobUse]) -> int:
    return sum(use.links for use in uses)
