"""Bytes that were fetched for clients, by day: sums that all workers add to.

Only the sums of one day are kept: the first addition of a day removes those of the days before.
"""

from collections.abc import Mapping

from mirror.store.metadata.index import ROWS, Index


class UsageBook:
    """The sums in one index. Synchronous: everything runs in a disk thread."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._pruned_before = 0

    def add(self, day: int, amounts: Mapping[str, int]) -> dict[str, int]:
        """Add amounts to the sums of a day; return these sums."""
        cache, sums = self._index.database.cache, {}
        with cache.transact():
            for name, amount in amounts.items():
                key = _key(day, name)
                sums[name] = _number(cache.get(key)) + amount
                if amount:
                    cache.set(key, str(sums[name]))
        if day > self._pruned_before:
            self._prune(day)
            self._pruned_before = day
        return sums

    def _prune(self, day: int) -> None:
        """Remove the sums of earlier days."""
        statement = "SELECT key FROM Cache WHERE key >= 'usage:' AND key < ? LIMIT ?"
        while rows := self._index.database.query(statement, (_key(day, ""), ROWS)):
            with self._index.database.cache.transact():
                for (key,) in rows:
                    self._index.database.cache.delete(key)


def _key(day: int, name: str) -> str:
    """Return the key of a sum; keys sort by day."""
    return f"usage:{day:08d}:{name}"


def _number(text: object) -> int:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0
