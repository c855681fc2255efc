"""A least-recently-used cache in memory, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Bytes that an entry costs besides its content: the key, the objects around the value, the slot in the table.
OVERHEAD = 600


class LRUCache(Generic[K, V]):
    """A mapping that evicts the least recently used entries. `limit` is in bytes; 0 keeps nothing."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, length: int) -> None:
        """Keep `value`, whose content is `length` bytes, unless its cost alone exceeds the limit."""
        self.drop(key)
        cost = length + OVERHEAD
        if cost > self._limit:
            return
        self._entries[key] = (value, cost)
        self.size += cost
        while self.size > self._limit:
            _, (_, freed) = self._entries.popitem(last=False)
            self.size -= freed

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield keys and values, which that does not make recently used. Nothing may change meanwhile."""
        return ((key, value) for key, (value, _) in self._entries.items())

    def drop(self, key: K) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.size -= found[1]

    def clear(self) -> None:
        self._entries.clear()
        self.size = 0
