"""Groups: principals that the configuration puts together, so that rules need not list them."""

from collections.abc import Iterable

from msgspec import Struct

from mirror.access.patterns import PatternIndex
from mirror.util.lru import LRUCache

# Room for remembered answers, in bytes: some thousand clients.
REMEMBERED_BYTES = 4 * 1024 * 1024


class Group(Struct, frozen=True):
    """A group, and patterns of the principals that are in it."""

    name: str
    members: tuple[str, ...]


class Groups:
    """All groups. A group is in no other one."""

    def __init__(self, groups: Iterable[Group] = ()) -> None:
        self._index = PatternIndex((each.members, f"group:{each.name}") for each in groups)
        self._found: LRUCache[tuple[str, ...], tuple[str, ...]] = LRUCache(REMEMBERED_BYTES)

    def of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the groups that one of the principals is in, as principals."""
        found = self._found.get(names)
        if found is None:
            found = tuple(sorted(self._index.find(names)))
            self._found.put(names, found, sum(map(len, names)))
        return found
