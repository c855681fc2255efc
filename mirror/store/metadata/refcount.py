"""Who else has a blob: its links, whatever repository they belong to.

What one repository alone has a link to, nobody needs any more when that repository lets go of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mirror.store.metadata.index import LINKED, LINKS, ROWS, Index

# link:<upstream>/<repository>@<digest>; in SQLite characters are counted from 1.
COUNT = f"""
SELECT {LINKED},
       substr(key, 6, instr(key, '/') - 6) AS upstream,
       count(*),
       min(substr(key, 6, instr(key, '@') - 6))
FROM Cache WHERE {LINKED} IN (%s) AND {LINKS}
GROUP BY 1, 2
"""  # noqa: S608  # ours

# What more repositories than this link is counted once by who goes through all of them: base images.
MANY = 8


@dataclass(frozen=True, slots=True)
class BlobUse:
    """How many repositories of one upstream link a digest; `first` is the first of them in order."""

    upstream: str
    links: int
    first_repository: str


class ReferenceCounts:
    """`memoise`: what many link is not counted again; for who changes nothing and goes through everything."""

    def __init__(self, index: Index, *, memoise: bool = False) -> None:
        self._index = index
        self._memoise = memoise
        self._many: dict[str, list[BlobUse]] = {}

    def uses(self, digests: Iterable[str]) -> dict[str, list[BlobUse]]:
        """By digest; nothing for what nobody links."""
        found: dict[str, list[BlobUse]] = {}
        asked: list[str] = []
        for digest in digests:
            if digest in self._many:
                found[digest] = self._many[digest]
            else:
                asked.append(digest)
        for start in range(0, len(asked), ROWS):
            found |= self._count(asked[start : start + ROWS])
        return found

    def _count(self, digests: list[str]) -> dict[str, list[BlobUse]]:
        found: dict[str, list[BlobUse]] = {}
        for digest, upstream, links, first in self._index.query(
            COUNT % ",".join("?" * len(digests)), digests
        ):
            found.setdefault(digest, []).append(BlobUse(upstream, links, first))
        if self._memoise:
            self._many |= {digest: uses for digest, uses in found.items() if _sum(uses) > MANY}
        return found

    def links(self, digests: Iterable[str]) -> dict[str, int]:
        """How many repositories link each."""
        return {digest: _sum(uses) for digest, uses in self.uses(digests).items()}


def _sum(uses: Iterable[BlobUse]) -> int:
    return sum(use.links for use in uses)
