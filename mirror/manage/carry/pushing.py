"""Imports into hosted registries: the images of an archive are kept as if a client had pushed them.

So a registry of another program moves here in one command. The operator is not bound by the quotas of the
registry. A tag that is here already stays as it is, unless the operator forces it.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from mirror.bundle.model import ContentDescriptor
from mirror.manage.carry.names import ImageName
from mirror.manage.carry.registrar import IMPORTED, Manifests, Registrar, descriptor_of, own_blobs
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.entries import Origin
from mirror.store.blobs.small_files import SmallFiles
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import BlobLost, ContentMissing
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.pushes import PushedManifest
from mirror.store.metadata.index import Provenance, TagEntry


def prepare(folder: CacheDirectory, hosted: Collection[str], given: str) -> None:
    """Note the registries, and keep for good what comes for one of them: `given` is the name for all images.

    The quota of the cache does not bound it, only the room on the disk. What no image needs in the end is
    garbage an hour later. Raises NameClash.
    """
    HostedIndex(folder).names.register(hosted, ())
    if given.partition("/")[0] in hosted:
        folder.blobs.retention.hosted_among = frozenset
        folder.evictor.quota = replace(folder.evictor.quota, max_size=0, max_age=math.inf)


class PushRegistrar(Struct, frozen=True):
    """Writer of the index for one archive, as `Registrar`, for repositories of hosted registries."""

    folder: CacheDirectory
    origin: str
    forced: bool
    now: float

    def link(
        self,
        repository: Repository,
        manifests: Manifests,
        digests: Iterable[Digest],
        unproven: Collection[Digest],
    ) -> None:
        """Link manifests and their blobs to a repository; not those manifests of which a part is not here."""
        index, wanted = HostedIndex(self.folder), frozenset(digests)
        files = SmallFiles(self.folder.blobs, self.folder.partials)
        for digest in _children_first(manifests, wanted):
            data, parsed = manifests.data[digest], manifests.graph.manifest(digest)
            blobs = tuple(dict.fromkeys(each.digest for each in own_blobs(parsed) if each.is_pushed))
            for each in blobs:
                self._link_blob(index, repository, each, unproven)
            if not self.folder.blobs.has(digest):
                files.add({digest: data.data}, Origin.PRIVATE, durable=self.folder.durable, retained=True)
            push = PushedManifest(
                repository,
                digest,
                data.data,
                data.media_type,
                blobs=blobs,
                manifests=tuple(dict.fromkeys(each.digest for each in parsed.manifests)),
                subject=None if parsed.subject is None else parsed.subject.digest,
                descriptor=json.dumps(descriptor_of(manifests, digest), separators=(",", ":")),
            )
            try:
                index.put_manifest(push)
            except (ContentMissing, BlobLost):  # the image is reported as lacking
                index.release([digest])

    def _link_blob(
        self, index: HostedIndex, repository: Repository, digest: Digest, unproven: Collection[Digest]
    ) -> None:
        row = None if digest in unproven else self.folder.blobs.table.row(str(digest))
        if row is not None:
            try:
                index.link_blob(repository, digest, row.size)
            except BlobLost:  # evicted in this moment
                return

    def put_tag(self, name: ImageName, root: ContentDescriptor, confirmed: int) -> bool:
        """Let a tag point to an image; return False if the tag here is another one, and stays."""
        known = self.folder.index.tag(name.repository, Tag(name.tag))
        if known is not None and known.digest != str(root.digest) and not self.forced:
            return False
        provenance = Provenance(IMPORTED, self.origin, self.now, float(min(confirmed, int(self.now))))
        entry = TagEntry(str(root.digest), root.media_type, root.size, self.now, provenance)
        return HostedIndex(self.folder).point(name.repository, Tag(name.tag), entry)

    def pin(self, name: ImageName, root: Digest) -> None:
        """Pin an image, which is kept without a pin too. Raises PinTooLarge."""
        Registrar(self.folder, self.origin, (), self.forced, self.now).pin(name, root)


def _children_first(manifests: Manifests, digests: frozenset[Digest]) -> Iterator[Digest]:
    """Yield the manifests in an order in which an index comes after what it names."""
    done, pending = set[Digest](), sorted(digests, reverse=True)
    opened = set[Digest]()
    while pending:
        digest = pending[-1]
        children = manifests.graph.manifest(digest).manifests if digest in manifests.data else ()
        first = [each.digest for each in children if each.digest in digests and each.digest not in opened]
        opened.add(digest)
        if first:
            pending += first
            continue
        pending.pop()
        if digest not in done and digest in manifests.data:
            done.add(digest)
            yield digest
