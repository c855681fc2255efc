"""Who else has a blob: links counted by digest, in a temporary table of SQLite's own.

What one repository alone has a link to, nobody needs any more when that repository lets go of it. There may
be millions of links: SQLite sorts them, on the disk where it must, and they are never in memory as a whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mirror.store.index import ROWS, Index

# link:<upstream>/<repository>@<digest>; in SQLite characters are counted from 1.
COUNT = """
CREATE TEMP TABLE usage AS
SELECT substr(key, instr(key, '@') + 1) AS digest,
       substr(key, 6, instr(key, '/') - 6) AS upstream,
       count(*) AS links,
       min(substr(key, 6, instr(key, '@') - 6)) AS first
FROM main.Cache WHERE key >= 'link:' AND key < 'link;'
GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Use:
    """How many repositories of one upstream link a digest; `first` is the first of them in order."""

    upstream: str
    links: int
    first: str


class Usage:
    """As things stood when it was made; for one thread, and one at a time."""

    def __init__(self, index: Index) -> None:
        self._index = index
        index.rows("DROP TABLE IF EXISTS temp.usage")
        index.rows(COUNT)
        index.rows("CREATE INDEX temp.usage_digest ON usage (digest)")

    def of(self, digests: Iterable[str]) -> dict[str, list[Use]]:
        """By digest; nothing for what nobody links."""
        found: dict[str, list[Use]] = {}
        asked = list(digests)
        for start in range(0, len(asked), ROWS):
            some = asked[start : start + ROWS]
            marks = ",".join("?" * len(some))
            rows = self._index.rows(
                f"SELECT digest, upstream, links, first FROM temp.usage WHERE digest IN ({marks})",  # noqa: S608
                some,
            )
            for digest, upstream, links, first in rows:
                found.setdefault(digest, []).append(Use(upstream, links, first))
        return found

    def links(self, digests: Iterable[str]) -> dict[str, int]:
        """How many repositories link each."""
        return {digest: sum(use.links for use in uses) for digest, uses in self.of(digests).items()}
