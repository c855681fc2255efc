"""Manifests, and what each of them needs: children, blobs, referrers."""

from collections.abc import Iterable, Iterator, Mapping
from sys import intern
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from mirror.bundle.model import BundleImage, BundleManifest
from mirror.oci.digest import Digest
from mirror.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    ManifestInvalid,
    parse_manifest,
)

IMAGE_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
MANIFEST_TYPES = frozenset({OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST})

# The rest of a descriptor that has nothing more.
NOTHING: Mapping[str, Any] = MappingProxyType({})

# Deepest nesting of indexes that is followed. The specification knows an index in an index; no program makes
# a third level.
DEEPEST = 8


class Absent(Struct, frozen=True, order=True):
    """A child of an index that is not here. `platform` is `os/architecture[/variant]`, "" if not stated."""

    digest: Digest
    platform: str


class Reach(Struct, frozen=True):
    """Closure of some manifests: manifests that are here, blobs with their sizes, and absent children."""

    manifests: tuple[Digest, ...]
    blobs: Mapping[Digest, int]
    absent: tuple[Absent, ...]


class Graph:
    """A set of manifests. A manifest that cannot be parsed has no children, as in the mirror itself."""

    def __init__(self, manifests: Mapping[Digest, BundleManifest], blobs: Iterable[Digest] = ()) -> None:
        """Parse the manifests. `blobs`: digests that the caller holds, whose objects are used here too."""
        shared = {each: each for each in blobs}
        self._parsed = {digest: _slim(parsed(each), shared) for digest, each in manifests.items()}
        self._referrers: dict[Digest, list[Digest]] = {}
        for digest in sorted(self._parsed):
            subject = self._parsed[digest].subject
            if subject is not None:
                self._referrers.setdefault(subject.digest, []).append(digest)

    def manifest(self, digest: Digest) -> Manifest:
        """Return a manifest, parsed. KeyError if it is not here."""
        return self._parsed[digest]

    def referrers(self) -> Mapping[Digest, list[Digest]]:
        """Return the digests of the manifests that name a subject, by the subject, which need not be here."""
        return self._referrers

    def reach(self, *roots: Digest, referrers: bool = False) -> Reach:
        """Return all that is below `roots`; with `referrers`, below the referrers of all that too."""
        found: dict[Digest, int] = {}
        blobs: dict[Digest, int] = {}
        absent: dict[Digest, Absent] = {}
        pending = [(root, 0) for root in reversed(roots)]
        while pending:
            digest, depth = pending.pop()
            if digest in found or digest not in self._parsed:
                continue
            found[digest] = depth
            blobs |= {each.digest: each.size for each in blobs_of(self._parsed[digest])}
            children = self._children(digest, depth, absent)
            more = self._referrers.get(digest, []) if referrers else []
            pending += [(each, depth + 1) for each in children] + [(each, depth) for each in more]
        return Reach(tuple(found), blobs, tuple(sorted(absent.values())))

    def images(self, root: Digest) -> list[Digest]:
        """Return the manifests of runnable images below `root`, each platform's."""
        return [each for each in self.reach(root).manifests if is_image(self._parsed[each])]

    def _children(self, digest: Digest, depth: int, absent: dict[Digest, Absent]) -> Iterator[Digest]:
        for child in reversed(self._parsed[digest].manifests):
            if child.digest not in self._parsed:
                absent[child.digest] = Absent(child.digest, child.platform or "")
            elif depth < DEEPEST:
                yield child.digest


def links_of(images: Iterable[BundleImage], graph: Graph) -> dict[str, tuple[Digest, ...]]:
    """Return the manifests of each repository: those below its images, and the referrers of all of them.

    A repository also has the blobs of its manifests.
    """
    roots: dict[str, list[Digest]] = {}
    for image in images:
        roots.setdefault(image.repository, []).append(image.root.digest)
    return {
        name: tuple(sorted(graph.reach(*digests, referrers=True).manifests))
        for name, digests in sorted(roots.items())
    }


def parsed(manifest: BundleManifest) -> Manifest:
    """Return a manifest, parsed; one without children if the bytes are not a manifest."""
    try:
        return parse_manifest(manifest.data, manifest.media_type)
    except ManifestInvalid:
        return Manifest(manifest.media_type, None, (), (), None)


def _slim(manifest: Manifest, shared: dict[Digest, Digest]) -> Manifest:
    """Return a manifest without what a graph does not need: of 100,000 descriptors that is 40 MB."""

    def slim(each: Descriptor) -> Descriptor:
        platform = each.raw.get("platform")
        raw = {} if platform is None else {"platform": platform}
        digest = shared.setdefault(each.digest, each.digest)
        return Descriptor(intern(each.media_type), digest, each.size, each.urls, raw or NOTHING)

    def of(value: Descriptor | None) -> Descriptor | None:
        return None if value is None else slim(value)

    return Manifest(
        intern(manifest.media_type),
        of(manifest.config),
        tuple(map(slim, manifest.layers)),
        tuple(map(slim, manifest.manifests)),
        of(manifest.subject),
    )


def blobs_of(manifest: Manifest) -> list[Descriptor]:
    """Return the descriptors of config and layers; of foreign layers (those with URLs) too."""
    config = () if manifest.config is None else (manifest.config,)
    return [*config, *manifest.layers]


def is_image(manifest: Manifest) -> bool:
    """Return whether a manifest is an image that a container can be made of.

    Old cosign signatures and attestations of buildx have an image's config, and layers that are no tars.
    """
    if manifest.config is None or manifest.config.media_type not in IMAGE_CONFIGS:
        return False
    return all(".tar" in each.media_type for each in manifest.layers)
