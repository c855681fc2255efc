"""The blobs and links of a store in memory, with a quota and pins."""

import os
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.manifest import ManifestInvalid, parse_manifest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.entries import EvictedBlob, OpenBlob, Origin
from mirror.store.metadata.index import Link, TagEntry


class MemoryBlob(Struct):
    """A blob; `used`: when it was used last, in seconds since the epoch."""

    data: bytes
    origin: Origin
    used: float


class MemoryBlobs:
    """The state that the parts of a store in memory share."""

    def __init__(self, limit: int = sys.maxsize) -> None:
        """`limit`: the quota, in bytes."""
        self.limit = limit
        self.blobs: dict[Digest, MemoryBlob] = {}
        self.links: dict[tuple[Repository, Digest], Link] = {}
        self.tags: dict[tuple[Repository, Tag], TagEntry] = {}
        self.repositories: set[str] = set()
        self.reading: Counter[Digest] = Counter()
        self.pins: Sequence[Pin] = ()

    @property
    def used(self) -> int:
        """The bytes of all blobs."""
        return sum(len(each.data) for each in self.blobs.values())

    def add(self, digest: Digest, data: bytes, origin: Origin) -> None:
        """Add a blob. ValueError for bytes of another digest."""
        if Digest.of(data, digest.algorithm) != digest:
            raise ValueError(f"the bytes do not hash to {digest}")
        self.blobs.setdefault(digest, MemoryBlob(data, origin, time.time()))

    def add_link(self, repository: Repository, digest: Digest, link: Link) -> None:
        """Link a digest to a repository, over a known link."""
        self.links[repository, digest] = link.over(self.links.get((repository, digest)))
        self.repositories.add(str(repository))

    def open(self, digest: Digest) -> OpenBlob | None:
        """Open a blob as a file in memory, which `sendfile` can send."""
        blob = self.blobs.get(digest)
        if blob is None:
            return None
        file = os.fdopen(os.memfd_create("blob", os.MFD_CLOEXEC), "wb+", buffering=0)
        file.write(blob.data)
        file.seek(0)
        return OpenBlob(file, len(blob.data), blob.origin)

    def evict(self, keep: Collection[Digest], excess: int) -> list[EvictedBlob]:
        """Evict, least recently used first, until `excess` bytes are gone; not what is read or pinned."""
        evicted: list[EvictedBlob] = []
        kept = {*keep, *self.reading, *self._pinned()}
        for digest, blob in sorted(self.blobs.items(), key=lambda each: each[1].used):
            if excess <= 0:
                break
            if digest not in kept:
                del self.blobs[digest]
                excess -= len(blob.data)
                evicted.append(EvictedBlob(digest, len(blob.data)))
        return evicted

    def _pinned(self) -> Iterator[Digest]:
        """Yield what pinned tags lead to."""
        pending = [
            Digest.parse(entry.digest)
            for (repository, tag), entry in self.tags.items()
            if any(pin.images.match(repository, tag.name, entry.digest) for pin in self.pins)
        ]
        while pending:
            digest = pending.pop()
            yield digest
            if digest in self.blobs:
                try:
                    pending += [
                        each.digest for each in parse_manifest(self.blobs[digest].data, "").children()
                    ]
                except ManifestInvalid:  # a config or a layer
                    continue
