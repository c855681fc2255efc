"""The inventory: the images of a cache folder, by tag or by digest, each with all its parts.

Synchronous. No more than one repository is in memory at a time.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct

from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, on_platform
from mirror.oci.manifest import platform_of
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import SMALL_BYTES
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import Closures, Part, digest_or_none
from mirror.store.metadata.index import ROWS, Provenance, TagEntry
from mirror.store.metadata.query import repositories, tags
from mirror.store.metadata.refcount import ReferenceCounts
from mirror.store.pins.pin_file import PinEntry

# Tags that are made of a digest name signatures and the like: they belong to the image with that digest.
REFERRING = re.compile(r"(sha256|sha512)-[0-9a-f]{64}(\.[a-z]+)?")

EVERY_TAG = ImagePattern("*")


class StoredImage(Struct, frozen=True):
    """An image of some repository: its tag ("" for none) and all its parts, the root first.

    `entry`: the tag entry, None without a tag.
    """

    tag: str
    parts: tuple[Part, ...]
    entry: TagEntry | None = None

    @property
    def root(self) -> Digest:
        return self.parts[0].digest


class ImageSummary(Struct, frozen=True):
    """An image as `ls` shows it.

    `size`: bytes that are here; `shared`: those of them that other images need too. `missing`: digests that
    would have to be downloaded for the platforms that are here. `last_used`: seconds since the epoch, None if
    no manifest of the image is here. `missing_platforms`: platforms that are pinned, and not here.
    `provenance`: how the tag came here, None for a tag that its upstream has confirmed. `gone_since`: since
    when it is kept although it is gone upstream, in seconds since the epoch.
    """

    repository: Repository
    tag: str
    digest: Digest
    platforms: tuple[str, ...]
    size: int
    shared: int
    last_used: float | None
    missing: tuple[str, ...]
    pinned: bool
    missing_platforms: tuple[str, ...] = ()
    provenance: Provenance | None = None
    gone_since: float | None = None

    @property
    def complete(self) -> bool:
        """Return whether the image can be served offline, with all platforms that are here or pinned."""
        return not self.missing and not self.missing_platforms

    @property
    def reference(self) -> str:
        """The full name, with tag or digest."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"


class Inventory:
    """The images of one cache folder. For one thread."""

    def __init__(self, folder: CacheDirectory) -> None:
        self._folder = folder
        self._closures = Closures(folder.index, folder.reader.read)
        self._usage = ReferenceCounts(folder.index, memoise=True)

    def images(self, wanted: ImagePattern) -> Iterator[ImageSummary]:
        """Yield the images that match, by repository and tag."""
        for repository in repositories(self._folder.index, wanted):
            found = self.of(repository)
            needed = Counter(part.digest for each in found for part in each.parts)
            for each in found:
                if wanted.match(repository, each.tag, str(each.root)):
                    yield self._summary(repository, each, needed)

    def of(self, repository: Repository) -> list[StoredImage]:
        """Return all images of a repository.

        1. each tag, except the tags of signatures and the like
        2. each signature whose image is not here
        3. each manifest without a tag that no image of 1, 2 or 3 contains
        """
        # Manifests are parsed once for each repository, although they are asked for more often.
        self._closures = Closures(self._folder.index, self._folder.reader.read, {})
        found: list[tuple[str, TagEntry, Part]] = []
        signatures: list[tuple[str, TagEntry, Part]] = []
        for tag, entry in tags(self._folder.index, repository, EVERY_TAG):
            if (digest := digest_or_none(entry.digest)) is None:
                continue
            root = Part(digest, entry.size, True)
            (signatures if REFERRING.fullmatch(tag) else found).append((tag, entry, root))
        walked = [self._walk(repository, root, tag, entry) for tag, entry, root in found]
        seen = _manifests(walked)
        others = [each for each in signatures if each[2].digest not in seen]
        walked += [self._walk(repository, root, tag, entry) for tag, entry, root in others]
        return walked + self._untagged(repository, _manifests(walked))

    def _walk(
        self, repository: Repository, root: Part, tag: str = "", entry: TagEntry | None = None
    ) -> StoredImage:
        return StoredImage(tag, tuple(self._closures.parts(repository, root)), entry)

    def _untagged(self, repository: Repository, seen: set[Digest]) -> list[StoredImage]:
        walked = [self._walk(repository, root) for root in self._manifests(repository, seen)]
        below = {part.digest for each in walked for part in each.parts[1:]}
        return [each for each in walked if each.root not in below]

    def _manifests(self, repository: Repository, seen: set[Digest]) -> Iterator[Part]:
        """Yield the manifests of the repository that are here and not among `seen`."""
        after = ""
        while links := self._folder.index.links(repository, after, ROWS):
            after = str(links[-1][0])
            new = {
                str(digest): link
                for digest, link, _ in links
                if link.media_type is not None and digest not in seen
            }
            for text in self._folder.blobs.table.sizes_and_last_use(new):
                yield Part(Digest.parse(text), new[text].size or 0, is_manifest=True)

    def _summary(self, repository: Repository, found: StoredImage, needed: Counter[Digest]) -> ImageSummary:
        here = self._folder.blobs.table.sizes_and_last_use(str(part.digest) for part in found.parts)
        links = self._usage.links(here)
        shared = sum(
            size
            for text, (size, _) in here.items()
            if links.get(text, 0) > 1 or needed[Digest.parse(text)] > 1
        )
        own = [part for part in found.parts if not part.is_referrer]
        used = [here[str(part.digest)][1] for part in own if part.is_manifest and str(part.digest) in here]
        pins = self._folder.pins.matching(repository, found.tag, str(found.root))
        return ImageSummary(
            repository,
            found.tag,
            found.root,
            platforms=self._platforms(found, here),
            size=sum(size for size, _ in here.values()),
            shared=shared,
            last_used=max(used, default=None),
            missing=self._missing(found, here),
            pinned=bool(pins),
            missing_platforms=self._missing_platforms(found, here, pins),
            provenance=None if found.entry is None else found.entry.provenance,
            gone_since=self._gone_since(repository, found),
        )

    def _platforms(self, found: StoredImage, here: dict[str, tuple[int, float]]) -> tuple[str, ...]:
        """Return the platforms whose manifest is here; for an image without an index, that of its config."""
        children = self._closures.children(found.root)
        entries = [part for part in children if part.is_manifest and not part.is_referrer]
        if not entries and children:
            platform = self._config_platform(children[0].digest)
            return () if platform is None else (platform,)
        listed = (part.platform for part in entries if str(part.digest) in here)
        return tuple(dict.fromkeys(each for each in listed if each is not None))

    def _missing_platforms(
        self, found: StoredImage, here: dict[str, tuple[int, float]], pins: list[PinEntry]
    ) -> tuple[str, ...]:
        """Return the platforms of an index that are pinned, and whose manifest is not here."""
        missing = (
            part.platform
            for part in self._closures.children(found.root)
            if part.is_manifest and not part.is_referrer and str(part.digest) not in here
        )
        return tuple(
            platform
            for platform in dict.fromkeys(missing)
            if platform is not None
            and not platform.startswith("unknown/")  # attestations, which are for no machine
            and any(on_platform(platform, each.pin.platforms) for each in pins)
        )

    def _gone_since(self, repository: Repository, found: StoredImage) -> float | None:
        """Return since when an image is gone upstream: its tag, or else its manifest."""
        known = found.entry or self._folder.index.link(repository, found.root)
        return None if known is None or known.gone is None else known.gone.since

    def _config_platform(self, digest: Digest) -> str | None:
        data = self._folder.reader.read(digest, SMALL_BYTES)
        try:
            return None if data is None else platform_of(json_text.parse(data))
        except ValueError:
            return None

    def _missing(self, found: StoredImage, here: dict[str, tuple[int, float]]) -> tuple[str, ...]:
        """Return the missing parts: the root and blobs; manifests only if there is not one platform here."""
        own = [part for part in found.parts if not part.is_referrer]
        missing = [part for part in own if str(part.digest) not in here]
        entries = [part for part in own[1:] if part.is_manifest]
        no_platform = bool(entries) and all(part in missing for part in entries)
        return tuple(
            str(part.digest)
            for part in missing
            if no_platform or not part.is_manifest or part.digest == found.root
        )


def _manifests(walked: Iterable[StoredImage]) -> set[Digest]:
    return {part.digest for each in walked for part in each.parts if part.is_manifest}
