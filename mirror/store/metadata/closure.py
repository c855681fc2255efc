"""The closure of an image: everything that its root manifest leads to, as far as it is known here.

An index leads to the manifests of its platforms, these to configs and layers; and each manifest leads to its
referrers: those that the upstream's referrers API listed, and the tags `sha256-<hex>...` by which signatures,
attestations and SBOMs are found without that API (OCI distribution-spec, "Referrers Tag Schema", and cosign's
`.sig`, `.att`, `.sbom`).
"""

from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

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
from mirror.oci.referrers import descriptors_in
from mirror.store.metadata.index import Index
from mirror.store.metadata.pushed_referrers import PushedReferrers

# Most tags that refer to one manifest; there are four kinds of such tags.
MAX_REFERRING_TAGS = 16

# The annotation by which an entry of an index belongs to one of its images, as BuildKit's attestations do;
# its value is the image's digest.
ATTACHED_TO = "vnd.docker.reference.digest"
NO_PLATFORM = "unknown/unknown"


class Part(Struct, frozen=True):
    """One part of an image. `size` in bytes; `platform` if an index gives it.

    `is_referrer`: the part is not of the image itself, but refers to the image, or belongs to a part that
    does. `attached_to`: the digest that an entry of an index belongs to.
    """

    digest: Digest
    size: int
    is_manifest: bool = False
    platform: str | None = None
    is_referrer: bool = False
    attached_to: str | None = None


Children = dict[Digest, tuple[Part, ...]]


class Closures:
    """Reads manifests by `read(digest, limit)`, which returns None for content that is not here.

    `known`: the children of manifests from an earlier run, which are not read again; `visited` is then the
    same of all manifests of this run.
    """

    def __init__(
        self, index: Index, read: Callable[[Digest, int], bytes | None], known: Children | None = None
    ) -> None:
        self._index = index
        self._pushed = PushedReferrers(index)
        self._read = read
        self._known = known
        self.visited: Children = {}

    def parts(self, repository: Repository, root: Part, platforms: tuple[str, ...] = ()) -> Iterator[Part]:
        """Yield all parts, each digest once, the root first; of an index only `platforms`, if given."""
        seen: set[Digest] = set()
        pending = [root]
        while pending:
            part = pending.pop()
            if part.digest in seen:
                continue
            seen.add(part.digest)
            yield part
            if part.is_manifest:
                named = select_platforms(self.children(part.digest), platforms)
                pending += (replace(each, is_referrer=True) for each in named) if part.is_referrer else named
                pending += self.referrers(repository, part.digest)

    def children(self, digest: Digest) -> tuple[Part, ...]:
        """Return what a manifest names; nothing if the manifest is not here."""
        if self._known is None:
            return self._read_children(digest) or ()
        found = self.visited.get(digest) or self._known.get(digest) or self._read_children(digest)
        if found is not None:
            self.visited[digest] = found
        return found or ()

    def _read_children(self, digest: Digest) -> tuple[Part, ...] | None:
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
            *(_part_of_index(each) for each in manifest.manifests),
        )

    def referrers(self, repository: Repository, digest: Digest) -> Iterator[Part]:
        """Yield the manifests that refer to a digest: those that its upstream listed, those of tags."""
        yield from self.listed_referrers(repository, digest)
        for name in self.referring_tags(repository, digest):
            entry = self._index.tag(repository, Tag(name))
            if entry is not None and (found := digest_or_none(entry.digest)) is not None:
                yield Part(found, entry.size, True, is_referrer=True)

    def listed_referrers(self, repository: Repository, digest: Digest) -> Iterator[Part]:
        """Yield the manifests that the upstream's list of referrers names, or that were pushed as such."""
        listed = self._index.referrers(repository, digest)
        found = self._pushed.listed(repository, digest) if listed is None else listed.manifests
        for each in descriptors_of(descriptors_in(found)):
            yield Part(each.digest, each.size, True, is_referrer=True)

    def referring_tags(self, repository: Repository, digest: Digest) -> list[str]:
        """Return the tags `sha256-<hex>...` of a digest that have an entry."""
        return self._index.tags(repository, "", MAX_REFERRING_TAGS, str(referrers_tag(digest)))


def digest_or_none(text: str) -> Digest | None:
    """Parse a digest; None for text that is none."""
    try:
        return Digest.parse(text)
    except RegistryError:
        return None


def _part_of_index(descriptor: Descriptor) -> Part:
    """Return the manifest that an entry of an index names."""
    if descriptor.platform != NO_PLATFORM:
        return Part(descriptor.digest, descriptor.size, True, descriptor.platform)
    annotations = descriptor.raw.get("annotations")
    about = annotations.get(ATTACHED_TO) if isinstance(annotations, dict) else None
    return Part(descriptor.digest, descriptor.size, True, is_referrer=True, attached_to=str(about))


def select_platforms(named: tuple[Part, ...], platforms: tuple[str, ...]) -> list[Part]:
    """Return the entries of an index for the wanted platforms, and those attached to them."""
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
