"""The names of hosted registries, in the index: what their repositories link is kept for good.

hosted:<name>   -> ""

They are in the index, and not only in the configuration, so that a command with another configuration, and a
mirror whose configuration has lost a name, treat what was pushed as what it is.
"""

from collections.abc import Iterable

from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Index
from mirror.store.metadata.refcount import ReferenceCounts

KIND = "hosted:"


class NameClash(StoreError):
    """A registry of the configuration has a name under which the folder has content of the other kind."""


# The most names; each is a table of the configuration file.
MOST_NAMES = 1000


class HostedNames:
    """The names in one index. Every method blocks."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._counts = ReferenceCounts(index)

    def all(self) -> frozenset[str]:
        """Return the names."""
        rows = self._index.database.query(
            "SELECT key FROM Cache WHERE key >= 'hosted:' AND key < 'hosted;' LIMIT ?", (MOST_NAMES,)
        )
        return frozenset(str(key).removeprefix(KIND) for (key,) in rows)

    def has(self, repository: Repository) -> bool:
        """Return whether the repository is of a hosted registry."""
        return repository.upstream in self.all()

    def linked_among(self, digests: Iterable[str]) -> set[str]:
        """Return those of the digests, as text, that hosted repositories link."""
        names = self.all()
        if not names:
            return set()
        return {
            digest
            for digest, uses in self._counts.uses(digests).items()
            if any(use.upstream in names for use in uses)
        }

    def register(self, hosted: Iterable[str], mirrored: Iterable[str]) -> None:
        """Note the hosted registries of a configuration.

        Raises NameClash: what an upstream has said must not pass for what was pushed, nor the reverse.
        """
        known = self.all()
        if clash := sorted(known.intersection(mirrored)):
            raise NameClash(
                f"{clash[0]} was a hosted registry in this cache folder, and is an upstream now: give one of "
                f"them another name, or remove what was pushed: registry-mirror rm '{clash[0]}/*'"
            )
        for name in sorted(set(hosted) - known):
            if self._index.repositories(f"{name}/", "", 1):
                raise NameClash(
                    f"{name} was an upstream in this cache folder, and is hosted now: give one of them "
                    f"another name, or remove what is cached: registry-mirror rm '{name}/*'"
                )
            self.add(name)

    def add(self, name: str) -> None:
        """Note a hosted registry."""
        self._index.database.cache.add(f"{KIND}{name}", "")

    def forget(self, name: str) -> bool:
        """Forget a name without content; return whether it was known."""
        if self._index.repositories(f"{name}/", "", 1):
            return False
        return bool(self._index.database.cache.delete(f"{KIND}{name}"))
