"""What an image is made of: everything that its root manifest leads to, as far as that is known here.

index -> manifests of its platforms -> configs and layers; and for each manifest what refers to it: what the
upstream's referrers API listed, and the tags `sha256-<hex>...` by which signatures, attestations and SBOMs
are found without it (OCI distribution-spec, "Referrers Tag Schema", and cosign's `.sig`, `.att`, `.sbom`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.image_pattern import on_platform
from mirror.oci.manifest import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    ManifestInvalid,
    descriptors_of,
    parse_manifest,
    referrers_tag,
)
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import Index

# The tags that refer to one manifest; there are four kinds of them.
MOST_TAGS = 16

# Where an index has what belongs to one of its images, as BuildKit's attestations do: the image's digest.
ATTACHED_TO = "vnd.docker.reference.digest"
NO_PLATFORM = "unknown/unknown"


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that an image is made of. `size` in bytes; `platform` where an index tells it.

    `refers`: it is not of the image itself, but refers to it, or belongs to what does. `about`: the digest
    that an entry of an index is attached to.
    """

    digest: Digest
    size: int
    is_manifest: bool = False
    platform: str | None = None
    is_referrer: bool = False
    attached_to: str | None = None


Named = dict[Digest, tuple[Part, ...]]


class Closures:
    """Reads manifests by `read(digest, limit)`, which answers None for what is not here.

    `known`: what manifests were found to name the last time, so that they are not read again; then `met` is
    the same of all that were looked at this time.
    """

    def __init__(
        self, index: Index, read: Callable[[Digest, int], bytes | None], known: Named | None = None
    ) -> None:
        self._index = index
        self._read = read
        self._known = known
        self.visited: Named = {}

    def parts(self, repository: Repository, root: Part, platforms: tuple[str, ...] = ()) -> Iterator[Part]:
        """Everything, each digest once, the root first; of an index only these platforms, if any."""
        seen: set[Digest] = set()
        todo = [root]
        while todo:
            part = todo.pop()
            if part.digest in seen:
                continue
            seen.add(part.digest)
            yield part
            if part.is_manifest:
                named = _chosen(self.children(part.digest), platforms)
                todo += (replace(each, is_referrer=True) for each in named) if part.is_referrer else named
                todo += self._referring(repository, part.digest)

    def children(self, digest: Digest) -> tuple[Part, ...]:
        """What a manifest names; nothing if it is not here."""
        if self._known is None:
            return self._read_named(digest) or ()
        found = self.visited.get(digest) or self._known.get(digest) or self._read_named(digest)
        if found is not None:
            self.visited[digest] = found
        return found or ()

    def _read_named(self, digest: Digest) -> tuple[Part, ...] | None:
        data = self._read(digest, MAX_MANIFEST_BYTES)
        if data is None:
            return None
        try:
            manifest = parse_manifest(data, "")
        except ManifestInvalid:
            return ()
        blobs = (*((manifest.config,) if manifest.config else ()), *manifest.layers)
        return (
            *(Part(each.digest, each.size) for each in blobs if not each.urls),
            *(_entry(each) for each in manifest.manifests),
        )

    def _referring(self, repository: Repository, digest: Digest) -> Iterator[Part]:
        listed = self._index.referrers(repository, digest)
        if listed is not None:
            for each in descriptors_of(listed.manifests):
                yield Part(each.digest, each.size, True, is_referrer=True)
        for name in self.referring_tags(repository, digest):
            entry = self._index.tag(repository, Tag(name))
            if entry is not None and (found := digest_or_none(entry.digest)) is not None:
                yield Part(found, entry.size, True, is_referrer=True)

    def referring_tags(self, repository: Repository, digest: Digest) -> list[str]:
        """`sha256-<hex>` and what goes on behind it, as far as they have an entry."""
        return self._index.tags(repository, "", MOST_TAGS, str(referrers_tag(digest)))


def digest_or_none(text: str) -> Digest | None:
    """The digest, or None for what is none."""
    try:
        return Digest.parse(text)
    except RegistryError:
        return None


def _entry(descriptor: Descriptor) -> Part:
    """A manifest that an index names."""
    if descriptor.platform != NO_PLATFORM:
        return Part(descriptor.digest, descriptor.size, True, descriptor.platform)
    annotations = descriptor.raw.get("annotations")
    about = annotations.get(ATTACHED_TO) if isinstance(annotations, dict) else None
    return Part(descriptor.digest, descriptor.size, True, is_referrer=True, attached_to=str(about))


def _chosen(named: tuple[Part, ...], platforms: tuple[str, ...]) -> list[Part]:
    """Of what an index names the platforms that are wanted, and what is attached to those."""
    wanted = [
        each
        for each in named
        if each.attached_to is None and (each.platform is None or on_platform(each.platform, platforms))
    ]
    digests = {str(each.digest) for each in wanted}
    return wanted + [
        each
        for each in named
        if each.attached_to is not None and (not platforms or each.attached_to in digests)
    ]
