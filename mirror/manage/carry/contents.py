"""Contents of a bundle, collected from a cache folder; and what of them is missing there.

Content goes into a bundle only if this mirror would serve it for the image's repository (invariant 5): the
receiver takes the bundle's word for what a repository has.

Synchronous. Manifests are in memory, blobs are not.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from mirror.bundle.graph import Graph, parsed
from mirror.bundle.model import BundleContents, BundleImage, BundleManifest, ContentDescriptor
from mirror.manage.carry.selection import Selection
from mirror.manage.inventory import REFERRING
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, is_literal
from mirror.oci.manifest import MAX_MANIFEST_BYTES, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import Closures, Part, digest_or_none, select_platforms
from mirror.store.metadata.index import TagEntry
from mirror.store.metadata.query import repositories, tags

# Kinds of what is missing.
Kind = Literal["image", "platform", "manifest", "blob", "referrer"]


class Missing(Struct, frozen=True, order=True):
    """Content that was selected, and that is not here, or not for the image's repository.

    `digest` is "" for an image of which nothing is known. `platform`: the platform that lacks it, if the
    index says so. `unconfirmed`: the bytes are here, and only for other repositories.
    """

    image: str
    kind: Kind
    digest: str = ""
    size: int = 0
    platform: str = ""
    unconfirmed: bool = False


class Collected(Struct, frozen=True):
    """The contents of a bundle as far as they are here, and what is missing."""

    contents: BundleContents
    missing: tuple[Missing, ...]


def collect(folder: CacheDirectory, selection: Selection) -> Collected:
    """Collect what a bundle of the selection has, as far as it is here."""
    collector = _Collector(folder, selection)
    for pattern in selection.images:
        found = False
        for repository, tag, root, confirmed in _roots(folder, pattern):
            found = True
            collector.add_image(repository, tag, root, confirmed)
        if not found:
            collector.missing.append(Missing(str(pattern), "image"))
    return collector.collected()


def _roots(folder: CacheDirectory, pattern: ImagePattern) -> Iterator[tuple[Repository, str, Part, int]]:
    """Yield repository, tag ("" for none), root and time of confirmation of the images that match.

    Tags of signatures belong to their images, unless they are named.
    """
    for repository in repositories(folder.index, pattern):
        if pattern.digest is not None:
            link = folder.index.link(repository, pattern.digest)
            if link is not None and link.media_type is not None:
                yield repository, "", Part(pattern.digest, link.size or 0, True), 0
            continue
        for tag, entry in tags(folder.index, repository, pattern):
            if REFERRING.fullmatch(tag) and not is_literal(pattern.tag):
                continue
            if (digest := digest_or_none(entry.digest)) is not None:
                yield repository, tag, Part(digest, entry.size, True), confirmed_at(entry)


def confirmed_at(entry: TagEntry) -> int:
    """Return when an upstream last confirmed a tag, here or where it was imported from; 0 for never."""
    return int(entry.confirmed if entry.provenance is None else entry.provenance.confirmed)


class _Collector:
    """One collection. A manifest is read once for each repository that has it."""

    def __init__(self, folder: CacheDirectory, selection: Selection) -> None:
        self._folder = folder
        self._selection = selection
        self._closures = Closures(folder.index, folder.reader.read)
        self._images: dict[str, BundleImage] = {}
        self._manifests: dict[Digest, BundleManifest] = {}
        self._blobs: dict[Digest, int] = {}
        self._assumed: set[Digest] = set()
        self._lacking: set[Digest] = set()
        self._visited: set[tuple[Repository, Digest]] = set()
        self._name = ""
        self.missing: list[Missing] = []

    def collected(self) -> Collected:
        """Return what was collected so far, without the images that no other repository may vouch for."""
        refused = {each.image for each in self.missing if each.unconfirmed}
        images = tuple(sorted(each for name, each in self._images.items() if name not in refused))
        reach = Graph(self._manifests).reach(*(each.root.digest for each in images), referrers=True)
        needed = reach.blobs.keys()
        lacking = self._lacking - self._blobs.keys() - self._assumed
        contents = BundleContents(
            images,
            {digest: self._manifests[digest] for digest in reach.manifests},
            {digest: size for digest, size in self._blobs.items() if digest in needed},
            frozenset(self._assumed & needed),
            frozenset(lacking & needed),
        )
        return Collected(contents, tuple(sorted(set(self.missing))))

    def add_image(self, repository: Repository, tag: str, root: Part, confirmed: int) -> None:
        """Add an image with its platforms and referrers."""
        name = f"{repository}:{tag}" if tag else f"{repository}@{root.digest}"
        if name in self._images:
            return
        before, self._name = self._name, name
        manifest = self._add_manifest(repository, root, "image")
        if manifest is not None:
            content = ContentDescriptor(manifest.media_type, root.digest, len(manifest.data))
            self._images[name] = BundleImage(name, content, confirmed)
        self._name = before

    def _add_manifest(self, repository: Repository, part: Part, kind: Kind) -> BundleManifest | None:
        """Add a manifest and all that it leads to; return it, None if it is missing."""
        digest = part.digest
        if (repository, digest) in self._visited:
            return self._manifests.get(digest)
        self._visited.add((repository, digest))
        manifest = self._read(repository, digest)
        if manifest is None:
            self._note_missing(repository, part, kind)
            return None
        self._manifests[digest] = manifest
        self._add_children(repository, digest)
        if self._selection.referrers:
            self._add_referrers(repository, digest)
        return manifest

    def _read(self, repository: Repository, digest: Digest) -> BundleManifest | None:
        """Return a manifest that is here for the repository."""
        link = self._folder.reader.link(repository, digest)
        if link is None or self._folder.reader.look_up(repository, digest, link).unconfirmed:
            return None
        data = self._folder.reader.read(digest, MAX_MANIFEST_BYTES)
        return None if data is None else BundleManifest(data, link.media_type or OCI_MANIFEST)

    def _add_children(self, repository: Repository, digest: Digest) -> None:
        children = self._closures.children(digest)
        entries = select_platforms(children, self._selection.named_platforms)
        entries = [each for each in entries if each.is_manifest and self._is_carried(repository, each)]
        for each in children:
            if not each.is_manifest:
                self._add_blob(repository, each)
        for each in entries:
            self._add_manifest(repository, each, "platform")
        if not entries and any(each.is_manifest for each in children):
            wanted = ", ".join(self._selection.named_platforms)
            self.missing.append(Missing(self._name, "platform", str(digest), platform=wanted))

    def _is_carried(self, repository: Repository, entry: Part) -> bool:
        """Return whether the entry of an index goes into the bundle, or is missing if it cannot."""
        if entry.attached_to is None:
            return self._selection.requires_platforms or self._folder.reader.has(entry.digest)
        if not self._selection.referrers:
            return False
        return self._selection.every_platform or self._is_whole(repository, entry.digest)

    def _is_whole(self, repository: Repository, digest: Digest) -> bool:
        """Return whether a manifest that no client needs is here with all its blobs."""
        if self._read(repository, digest) is None:
            return False
        return all(self._folder.reader.has(each.digest) for each in self._closures.children(digest))

    def _add_blob(self, repository: Repository, part: Part) -> None:
        digest = part.digest
        if (repository, digest) in self._visited:
            return
        self._visited.add((repository, digest))
        local = self._folder.reader.look_up(repository, digest)
        vouched = local.link is not None and local.link.confirmed is not None
        is_here = local.present and local.link is not None and not local.unconfirmed
        if digest in self._selection.assumed and (vouched or is_here):
            self._assumed.add(digest)
        elif is_here:
            self._blobs[digest] = part.size
        else:
            self._lacking.add(digest)
            self._note_missing(repository, part, "blob")

    def _add_referrers(self, repository: Repository, digest: Digest) -> None:
        for each in self._closures.listed_referrers(repository, digest):
            found = self._read(repository, each.digest)
            subject = None if found is None else parsed(found).subject
            if found is None or (subject is not None and subject.digest == digest):
                self._add_manifest(repository, each, "referrer")
        for tag in self._closures.referring_tags(repository, digest):
            entry = self._folder.index.tag(repository, Tag(tag))
            root = None if entry is None else digest_or_none(entry.digest)
            if entry is not None and root is not None:
                part = Part(root, entry.size, True, is_referrer=True)
                self.add_image(repository, tag, part, confirmed_at(entry))

    def _note_missing(self, repository: Repository, part: Part, kind: Kind) -> None:
        present = self._folder.reader.has(part.digest)
        self.missing.append(
            Missing(self._name, kind, str(part.digest), part.size, part.platform or "", unconfirmed=present)
        )
