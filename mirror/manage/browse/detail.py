"""One image in detail: platforms, layers and their sharing, config, what refers to it, why it is kept."""

from collections.abc import Mapping

from msgspec import Struct

from mirror.manage.browse.config import MOST_BYTES, ImageConfig, labels_of, read_config
from mirror.manage.browse.search import MOST_PARTS, count_missing
from mirror.oci.digest import Digest
from mirror.oci.manifest import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    Manifest,
    ManifestInvalid,
    parse_manifest,
)
from mirror.oci.reference import Repository, Tag
from mirror.oci.referrers import descriptors_in
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import ATTACHED_TO, NO_PLATFORM, Closures, Part, digest_or_none
from mirror.store.metadata.index import Provenance, TagEntry
from mirror.store.metadata.refcount import ReferenceCounts
from mirror.store.pins.pin_file import PinEntry

# Referrers that are shown: of one manifest, and below each other.
MOST_REFERRERS, DEEPEST = 100, 4


class LayerDetail(Struct, frozen=True, kw_only=True):
    """A layer. `repositories`: how many have it; `here`: whether it is cached."""

    digest: str
    media_type: str
    size: int
    here: bool
    repositories: int


class PlatformDetail(Struct, frozen=True, kw_only=True):
    """An image for one platform, "" if that is not known. `size`: bytes of all its parts.

    `here`: whether its manifest is cached; without it there are no layers. `missing`: parts to be fetched.
    """

    platform: str
    digest: str
    here: bool
    size: int
    missing: int
    layers: list[LayerDetail]
    config: ImageConfig | None


class ReferrerDetail(Struct, frozen=True, kw_only=True):
    """Something that refers to an image: a signature, an SBOM. `tag`: by which it was found, "" for none."""

    digest: str
    kind: str
    size: int
    here: bool
    tag: str
    annotations: dict[str, str]
    referrers: list["ReferrerDetail"]


class ImageDetail(Struct, frozen=True, kw_only=True):
    """An image. `size`: bytes that are here, `shared`: those of them that other repositories have too.

    `pins`: that keep it. Moments in seconds since the epoch; `confirmed`: 0 for never.
    """

    reference: str
    repository: str
    tag: str
    digest: str
    media_type: str
    size: int
    shared: int
    missing: int
    last_used: float | None
    first_seen: float
    confirmed: float
    provenance: Provenance | None
    gone_since: float | None
    pins: list[str]
    platforms: list[PlatformDetail]
    referrers: list[ReferrerDetail]


class ImageReader:
    """Reads images of one cache folder. For one thread."""

    def __init__(self, folder: CacheDirectory, now: float) -> None:
        self._folder = folder
        self._now = now
        self._closures = Closures(folder.index, folder.reader.read, {})
        self._counts = ReferenceCounts(folder.index, memoise=True)

    def read(self, repository: Repository, reference: Tag | Digest) -> ImageDetail | None:
        """Return an image; None for one that is not known here."""
        index, entry = self._folder.index, None
        if isinstance(reference, Tag):
            entry = index.tag(repository, reference)
            digest = None if entry is None else digest_or_none(entry.digest)
        else:
            digest = reference
        link = None if digest is None else index.link(repository, digest)
        if digest is None or (entry is None and (link is None or link.media_type is None)):
            return None
        size = entry.size if entry is not None else link.size if link is not None else None
        parts = self._parts(repository, Part(digest, size or 0, is_manifest=True))
        here = self._folder.blobs.table.sizes_and_last_use(str(each.digest) for each in parts)
        media_type = entry.media_type if entry is not None else link.media_type if link is not None else ""
        tag = reference.name if isinstance(reference, Tag) else ""
        return self._detail(repository, tag, entry, ImageRoot(digest, media_type or ""), parts, here)

    def _detail(
        self,
        repository: Repository,
        tag: str,
        entry: TagEntry | None,
        root: "ImageRoot",
        parts: list[Part],
        here: dict[str, tuple[int, float]],
    ) -> ImageDetail:
        digest, link = root.digest, self._folder.index.link(repository, root.digest)
        gone = entry.gone if entry is not None else None if link is None else link.gone
        links = self._counts.links(here)
        pins: list[PinEntry] = self._folder.pins.matching(repository, tag, str(digest))
        return ImageDetail(
            reference=f"{repository}:{tag}" if tag else f"{repository}@{digest}",
            repository=str(repository),
            tag=tag,
            digest=str(digest),
            media_type=root.media_type,
            size=sum(size for size, _ in here.values()),
            shared=sum(size for text, (size, _) in here.items() if links.get(text, 0) > 1),
            missing=count_missing(parts, here),
            last_used=here[str(digest)][1] if str(digest) in here else None,
            first_seen=self._folder.index.first_seen(repository, digest, self._now),
            confirmed=entry.confirmed if entry is not None else (link and link.confirmed) or 0.0,
            provenance=None if entry is None else entry.provenance,
            gone_since=None if gone is None else gone.since,
            pins=[f"{each.pin} (configuration)" if each.configured else str(each.pin) for each in pins],
            platforms=self._platforms(digest, here),
            referrers=self._referrers(repository, digest, 0),
        )

    def _parts(self, repository: Repository, root: Part) -> list[Part]:
        found = []
        for part in self._closures.parts(repository, root):
            found.append(part)
            if len(found) >= MOST_PARTS:
                break
        return found

    def _platforms(self, root: Digest, here: dict[str, tuple[int, float]]) -> list[PlatformDetail]:
        manifest = self._manifest(root)
        if manifest is None:
            return []
        if not manifest.manifests:
            return [self._platform("", root, manifest, here)]
        images = [each for each in manifest.manifests if not _is_attached(each)]
        return [
            self._platform(each.platform or "", each.digest, self._manifest(each.digest), here)
            for each in images
        ]

    def _platform(
        self, name: str, digest: Digest, manifest: Manifest | None, here: dict[str, tuple[int, float]]
    ) -> PlatformDetail:
        if manifest is None:
            return PlatformDetail(
                platform=name, digest=str(digest), here=False, size=0, missing=1, layers=[], config=None
            )
        read = self._folder.reader.read
        config = None if manifest.config is None else read(manifest.config.digest, MOST_BYTES)
        counts = self._counts.links(str(each.digest) for each in manifest.layers)
        children = manifest.children()
        return PlatformDetail(
            platform=name,
            digest=str(digest),
            here=True,
            size=sum(each.size for each in children),
            missing=sum(str(each.digest) not in here for each in children if not each.urls),
            layers=[
                LayerDetail(
                    digest=str(each.digest),
                    media_type=each.media_type,
                    size=each.size,
                    here=str(each.digest) in here,
                    repositories=counts.get(str(each.digest), 0),
                )
                for each in manifest.layers
            ],
            config=read_config(config),
        )

    def _manifest(self, digest: Digest) -> Manifest | None:
        data = self._folder.reader.read(digest, MAX_MANIFEST_BYTES)
        try:
            return None if data is None else parse_manifest(data, "")
        except ManifestInvalid:
            return None

    def _referrers(self, repository: Repository, digest: Digest, depth: int) -> list[ReferrerDetail]:
        """Return what refers to a manifest: attached to it in its index, listed by its upstream, by tags."""
        if depth >= DEEPEST:
            return []
        found: dict[str, ReferrerDetail] = {}
        manifest = self._manifest(digest) if depth == 0 else None
        for each in manifest.manifests if manifest is not None else ():
            if _is_attached(each):
                found[str(each.digest)] = self._referrer(repository, each.digest, each.raw, depth)
        listed = self._folder.index.referrers(repository, digest)
        for raw in descriptors_in(listed.manifests) if listed is not None else ():
            other = digest_or_none(str(raw.get("digest")))
            if other is not None and len(found) < MOST_REFERRERS:
                found[str(other)] = self._referrer(repository, other, raw, depth)
        for tag in self._closures.referring_tags(repository, digest):
            entry = self._folder.index.tag(repository, Tag(tag))
            other = None if entry is None else digest_or_none(entry.digest)
            if entry is not None and other is not None:
                raw = {"size": entry.size, "artifactType": tag.rpartition(".")[2] if "." in tag else ""}
                found.setdefault(str(other), self._referrer(repository, other, raw, depth, tag))
        return list(found.values())

    def _referrer(
        self, repository: Repository, digest: Digest, raw: Mapping[str, object], depth: int, tag: str = ""
    ) -> ReferrerDetail:
        size, annotations = raw.get("size"), labels_of(raw.get("annotations"))
        kind = raw.get("artifactType") or annotations.get("vnd.docker.reference.type") or raw.get("mediaType")
        return ReferrerDetail(
            digest=str(digest),
            kind=str(kind or "")[:200],
            size=size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**53 else 0,
            here=bool(self._folder.blobs.table.sizes_and_last_use([str(digest)])),
            tag=tag,
            annotations=annotations,
            referrers=self._referrers(repository, digest, depth + 1),
        )


class ImageRoot(Struct, frozen=True):
    """The root manifest of an image."""

    digest: Digest
    media_type: str


def _is_attached(descriptor: Descriptor) -> bool:
    """Return whether an entry of an index is for no machine, but about another entry."""
    annotations = descriptor.raw.get("annotations")
    attached = isinstance(annotations, dict) and ATTACHED_TO in annotations
    return attached or descriptor.platform == NO_PLATFORM
