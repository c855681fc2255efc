"""Rows of the index that its bound removes: about digests, and what an upstream can tell again."""

from collections.abc import Sequence

from msgspec import Struct

from mirror.store.metadata.index import LINKS_AT_ONCE, ROWS, Index

# Rows about digests, and what an upstream can tell again.
PRUNED = ("link:", "referrers:", "seen:", "public:")


class DigestRow(Struct, frozen=True):
    """A link, or a list of referrers: the number of its row, its key, and the digest that it is about."""

    number: int
    key: str
    digest: str


def oldest_about_digests(index: Index, after: int, before: float) -> list[DigestRow]:
    """Return links and referrers among the next ROWS rows behind row `after`, written before a moment.

    The last one may be a row of another kind: it says how far the rows were read.
    """
    rows = index.database.query(
        "SELECT rowid, key FROM Cache WHERE rowid > ? AND store_time < ? ORDER BY rowid LIMIT ?",
        (after, before, ROWS),
    )
    return [DigestRow(number, key, key.rpartition("@")[2]) for number, key in rows]


def remove_rows(index: Index, rows: Sequence[DigestRow]) -> int:
    """Remove those of the rows that are pruned; return their number."""
    keys = [each.key for each in rows if each.key.startswith(PRUNED)]
    for start in range(0, len(keys), LINKS_AT_ONCE):
        with index.database.cache.transact():
            for key in keys[start : start + LINKS_AT_ONCE]:
                index.database.cache.delete(key)
    return len(keys)
