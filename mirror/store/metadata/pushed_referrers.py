"""Referrers of what was pushed, in the index: a row for each, so that a push writes one row.

referrer:<registry>/<repository>@<subject>@<digest>  -> descriptor, as JSON text
refers:<registry>/<repository>@<digest>              -> subject
"""

from collections.abc import Collection, Iterator

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.oci.referrers import array_of, type_of
from mirror.store.metadata.index import Index

# Bytes of one page of a list: with the index around it, oras takes 4 MiB of an answer and no more.
PAGE_BYTES = 4 * 1024 * 1024 - 1024

# Bytes that are read for one page, where most descriptors are of another type.
READ_BYTES = 4 * PAGE_BYTES

# Rows that are read at a time.
ROWS = 64


class PushedReferrers:
    """The rows of one index. Every method blocks."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def listed(self, repository: Repository, subject: Digest) -> str:
        """Return the list of referrers of a digest (`oci.referrers`), sorted by their digests."""
        return array_of(text for _, text in self._behind(repository, subject, ""))

    def page(
        self, repository: Repository, subject: Digest, after: str, kinds: Collection[str]
    ) -> tuple[str, str | None]:
        """Return the next part of the list, PAGE_BYTES at most, and the digest where it ends, if more follow.

        `after`: where the part before ended; `kinds`: the wanted artifactTypes, all if there are none. A part
        has one descriptor at least, unless it has READ_BYTES of other types.
        """
        texts: list[str] = []
        size = read = 0
        for digest, text in self._behind(repository, subject, after):
            wanted = not kinds or type_of(text) in kinds
            size, read = size + (len(text) + 1) * wanted, read + len(text)
            if (texts and size > PAGE_BYTES) or (read > READ_BYTES and after):
                return array_of(texts), after
            texts += [text] if wanted else []
            after = digest
        return array_of(texts), None

    def _behind(self, repository: Repository, subject: Digest, after: str) -> Iterator[tuple[str, str]]:
        """Yield the digests and descriptors of a list that sort after a digest."""
        kind = f"referrer:{repository}@{subject}@"
        cache, last, rows = self._index.database.cache, f"{kind}{after}", [("", None)] * ROWS
        while len(rows) == ROWS:
            rows = self._index.database.query(
                "SELECT key, value FROM Cache WHERE key > ? AND key < ? ORDER BY key LIMIT ?",
                (last, f"{kind}\U0010ffff", ROWS),
            )
            for key, value in rows:
                # A long descriptor is a file of the database, and its row has no value.
                text, last = cache.get(key) if value is None else value, key
                if isinstance(text, str):
                    yield key.removeprefix(kind), text

    def add(self, repository: Repository, digest: Digest, subject: Digest, descriptor: str) -> None:
        """Note that a manifest refers to another one, which need not be here."""
        cache = self._index.database.cache
        cache.set(f"referrer:{repository}@{subject}@{digest}", descriptor)
        cache.set(f"refers:{repository}@{digest}", str(subject))

    def drop(self, repository: Repository, digest: Digest) -> None:
        """Forget what a manifest refers to."""
        cache = self._index.database.cache
        if (subject := cache.get(f"refers:{repository}@{digest}")) is not None:
            cache.delete(f"referrer:{repository}@{subject}@{digest}")
            cache.delete(f"refers:{repository}@{digest}")
