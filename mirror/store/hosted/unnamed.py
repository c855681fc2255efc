"""Pushed blobs that no manifest names: garbage, once they are older than a push may take.

A client uploads the blobs of an image first, and then the manifest that names them. So a blob without a name
may be about to get one, and is kept for an hour. A push that names it while garbage is collected writes that
down in the transaction of the push, and the link stays (`HostedIndex.drop_unnamed`).
"""

import time
from collections.abc import Iterator

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.metadata.closure import Closures
from mirror.store.metadata.index import ROWS
from mirror.store.metadata.query import repositories

# Age, in seconds, from which a blob without a name is garbage.
UNNAMED_SECONDS = 3600.0


class UnnamedBlob(Struct, frozen=True):
    """A blob of a hosted repository that no manifest of the repository names. `size` in bytes."""

    repository: Repository
    digest: Digest
    size: int


class UnnamedBlobs:
    """A search for such blobs in one cache folder. Every method blocks."""

    def __init__(self, folder: CacheDirectory, now: float | None = None) -> None:
        self._folder = folder
        self._before = (time.time() if now is None else now) - UNNAMED_SECONDS
        self._index = HostedIndex(folder)

    def repositories(self) -> Iterator[Repository]:
        """Yield the hosted repositories."""
        for name in sorted(self._index.names.all()):
            yield from repositories(self._folder.index, ImagePattern(f"{name}/*"))

    def of(self, repository: Repository, *, remove: bool) -> Iterator[UnnamedBlob]:
        """Yield the blobs without a name; with `remove` their links are gone then.

        Nothing is removed of a repository with a manifest that cannot be read: what it names is not known.
        """
        named = self._named(repository)
        if named is None:
            return
        after = ""
        while links := self._folder.index.links(repository, after, ROWS):
            after = str(links[-1][0])
            old = {
                digest: link.size or 0
                for digest, link, noted in links
                if link.media_type is None and digest not in named and noted < self._before
            }
            gone = self._index.drop_unnamed(repository, list(old), self._before) if remove else old
            yield from (UnnamedBlob(repository, digest, old[digest]) for digest in gone)

    def _named(self, repository: Repository) -> set[Digest] | None:
        """Return what the manifests of a repository name; None if one of them cannot be read."""
        closures, named, after = Closures(self._folder.index, self._folder.reader.read, {}), set[Digest](), ""
        while links := self._folder.index.links(repository, after, ROWS):
            after = str(links[-1][0])
            for digest, link, _ in links:
                if link.media_type is None:
                    continue
                named.update(part.digest for part in closures.children(digest))
                if digest not in closures.visited:
                    return None
        return named
