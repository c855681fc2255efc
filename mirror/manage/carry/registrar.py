"""Index entries of imported images: manifests, links, lists of referrers, tags and pins.

An import is the operator's word. It confirms that a repository has what the archive carries for it, as an
answer of the repository's upstream would: without an account for good, and for an upstream that is asked with
an account here for its `recheck_access`. A blob that the sender could not vouch for is only named.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct

from mirror.bundle.graph import Graph, blobs_of
from mirror.bundle.model import BundleManifest, ContentDescriptor
from mirror.manage.carry.contents import confirmed_at
from mirror.manage.carry.names import ImageName
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin, escaped_address
from mirror.oci.manifest import Descriptor, Manifest
from mirror.oci.reference import Repository, Tag
from mirror.oci.referrers import array_of, descriptors_in
from mirror.store.cache_dir import CacheDirectory
from mirror.store.links.content import StoredManifest
from mirror.store.metadata.index import NEVER, Link, Provenance, ReferrersEntry, TagEntry

# The kind of provenance of an imported tag.
IMPORTED = "imported"


class Manifests:
    """The manifests of an archive, and what they lead to. `blobs`: as of `Graph`."""

    def __init__(self, manifests: Mapping[Digest, BundleManifest], blobs: Iterable[Digest] = ()) -> None:
        self.data = manifests
        self.graph = Graph(manifests, blobs)

    def below(self, root: Digest) -> tuple[Digest, ...]:
        """Return the manifests that an image has, with its referrers."""
        return self.graph.reach(root, referrers=True).manifests

    def count_links(self, digest: Digest) -> int:
        """Return the number of links that a repository with the manifest has for it; 0 if it is not here."""
        if digest not in self.data:
            return 0
        manifest = self.graph.manifest(digest)
        return 1 + len(manifest.manifests) + len(manifest.layers)

    def blobs(self, root: Digest) -> dict[Digest, int]:
        """Return the blobs that an image needs, with those of its referrers; no foreign layers."""
        manifests = map(self.graph.manifest, self.below(root))
        return {each.digest: each.size for manifest in manifests for each in own_blobs(manifest)}


def own_blobs(manifest: Manifest) -> Iterator[Descriptor]:
    """Yield the descriptors of blobs that a registry has; foreign layers, those with URLs, are elsewhere."""
    return (each for each in blobs_of(manifest) if not each.urls)


class Registrar(Struct, frozen=True):
    """Writer of the index for one archive.

    `origin`: name of the archive, for people. `accounts`: upstreams that are asked with an account here.
    `forced`: tags of the archive count, however old they are. `now`: seconds since the epoch.
    """

    folder: CacheDirectory
    origin: str
    accounts: Collection[str]
    forced: bool
    now: float

    def link(
        self,
        repository: Repository,
        manifests: Manifests,
        digests: Iterable[Digest],
        unproven: Collection[Digest],
    ) -> None:
        """Link manifests, which are here, and their blobs to a repository; `unproven` blobs by name only."""
        digests = frozenset(digests)
        for digest in digests:
            data = manifests.data[digest]
            parsed = manifests.graph.manifest(digest)
            children = {
                each.digest: self._blob_link(repository, each, unproven) for each in own_blobs(parsed)
            }
            children |= {
                each.digest: Link(each.media_type, each.size)
                for each in parsed.manifests
                if each.digest not in manifests.data
            }
            link = self._confirmed(repository, Link(data.media_type, len(data.data)))
            self.folder.writer.put_manifest(
                repository, StoredManifest(data.data, digest, data.media_type, link), children
            )
        for subject, referrers in manifests.graph.referrers().items():
            self._add_referrers(
                repository, subject, manifests, [each for each in referrers if each in digests]
            )

    def put_tag(self, name: ImageName, root: ContentDescriptor, confirmed: int) -> bool:
        """Let a tag point to an image; return False if the tag here is newer, and stays.

        `confirmed`: when the sender's upstream confirmed the tag, 0 if that is not known. A time that has not
        come yet is now, so that no archive makes its tags newer than all that is still to come.
        """
        confirmed = min(confirmed, int(self.now))
        known = self.folder.index.tag(name.repository, Tag(name.tag))
        if known is not None and known.digest == str(root.digest):
            if known.provenance is None or confirmed_at(known) >= confirmed:
                return True  # its upstream's own word, or one that is as new
        elif known is not None and confirmed_at(known) > confirmed and not self.forced:
            return False
        provenance = Provenance(IMPORTED, self.origin, self.now, float(confirmed))
        entry = TagEntry(str(root.digest), root.media_type, root.size, NEVER, provenance)
        self.folder.writer.put_tag(name.repository, Tag(name.tag), entry)
        return True

    def pin(self, name: ImageName, root: Digest) -> None:
        """Pin an image. Raises PinTooLarge."""
        pattern = escaped_address(str(name.repository))
        images = ImagePattern(pattern, name.tag) if name.tag else ImagePattern(pattern, digest=root)
        self.folder.pinning.pin(Pin(images))

    def _blob_link(self, repository: Repository, blob: Descriptor, unproven: Collection[Digest]) -> Link:
        link = Link(size=blob.size)
        return link if blob.digest in unproven else self._confirmed(repository, link)

    def _confirmed(self, repository: Repository, link: Link) -> Link:
        account = repository.upstream in self.accounts
        return Link(link.media_type, link.size, confirmed=float(int(self.now)), account=account)

    def _add_referrers(
        self, repository: Repository, subject: Digest, manifests: Manifests, referrers: list[Digest]
    ) -> None:
        """Add referrers to the list of a subject, which its upstream is asked about before it is used."""
        known = self.folder.index.referrers(repository, subject)
        listed = [] if known is None else list(descriptors_in(known.manifests))
        digests = {each.get("digest") for each in listed}
        new = [descriptor_of(manifests, each) for each in referrers if str(each) not in digests]
        if new:
            array = array_of(map(json.dumps, [*listed, *new]))
            confirmed = NEVER if known is None else known.confirmed
            self.folder.writer.put_referrers(repository, subject, ReferrersEntry(array, confirmed))


def descriptor_of(manifests: Manifests, digest: Digest) -> dict[str, object]:
    """Return the descriptor of a referrer, as a registry lists it."""
    manifest = manifests.data[digest]
    fields: dict[str, Any] = {}
    with suppress(ValueError):  # of a manifest that has too many values to be parsed
        fields = json_text.parse(manifest.data)
    config = manifests.graph.manifest(digest).config
    kind = fields.get("artifactType") or (config.media_type if config is not None else "")
    found = {"mediaType": manifest.media_type, "digest": str(digest), "size": len(manifest.data)}
    notes = fields.get("annotations")
    return {
        **found,
        **({"artifactType": kind} if isinstance(kind, str) and kind else {}),
        **({"annotations": notes} if isinstance(notes, dict) else {}),
    }
