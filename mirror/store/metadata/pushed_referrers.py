"""Referrers of what was pushed, in the index: a row for each, so that a push writes one row.

referrer:<registry>/<repository>@<subject>@<digest>  -> descriptor, as JSON text
refers:<registry>/<repository>@<digest>              -> subject
"""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.oci.referrers import array_of
from mirror.store.metadata.index import Index


class PushedReferrers:
    """The rows of one index. Every method blocks."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def listed(self, repository: Repository, subject: Digest) -> str:
        """Return the list of referrers of a digest (`oci.referrers`), sorted by their digests."""
        kind = f"referrer:{repository}@{subject}@"
        rows = self._index.query(
            "SELECT key, value FROM Cache WHERE key >= ? AND key < ? ORDER BY key",
            (kind, f"{kind}\U0010ffff"),
        )
        # A long descriptor is a file of the database, and its row has no value.
        cache = self._index.database.cache
        texts = (cache.get(key) if text is None else text for key, text in rows)
        return array_of(text for text in texts if isinstance(text, str))

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
