"""Repositories that are public by the word of their upstreams, in the index; all others are private.

public:<upstream>/<repository>   -> PublicMark
"""

import msgspec
from msgspec import Struct

from mirror.oci.reference import Repository
from mirror.store.metadata.index import Index

KIND = "public:"


class PublicMark(Struct, frozen=True):
    """The word of an upstream that anybody may read a repository, at `confirmed`, in seconds since the epoch.

    `reference`: of the manifest that was asked for, and may be again; None for the list of tags.
    """

    confirmed: float
    reference: str | None = None


class PublicRepositories:
    """The marks of one index. Every method blocks."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def mark(self, repository: Repository) -> PublicMark | None:
        """Return the mark of a repository; None for a row that cannot be read, too."""
        return _parse(self._index.database.cache.get(f"{KIND}{repository}"))

    def put(self, repository: Repository, mark: PublicMark) -> None:
        """Write the mark of a repository."""
        self._index.database.cache.set(f"{KIND}{repository}", msgspec.json.encode(mark).decode())

    def drop(self, repository: Repository) -> None:
        """Remove the mark of a repository."""
        self._index.database.cache.delete(f"{KIND}{repository}")

    def between(self, first: str, last: str) -> dict[str, PublicMark]:
        """Return the marks of the repositories from `first` to `last`, `<upstream>/<repository>`, by name."""
        rows = self._index.database.query(
            "SELECT key, value FROM Cache WHERE key >= ? AND key <= ?", (f"{KIND}{first}", f"{KIND}{last}")
        )
        found = ((key.removeprefix(KIND), _parse(value)) for key, value in rows)
        return {name: mark for name, mark in found if mark is not None}


def _parse(text: object) -> PublicMark | None:
    try:
        return msgspec.json.decode(text, type=PublicMark) if isinstance(text, str) else None
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
