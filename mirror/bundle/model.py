"""Contents of a bundle: images, their manifests and the blobs to carry."""

from collections.abc import Mapping

from msgspec import Struct

from mirror.bundle.errors import BundleError
from mirror.oci.digest import Digest
from mirror.oci.reference import TAG


class ContentDescriptor(Struct, frozen=True, order=True):
    """A descriptor: media type, digest, and size in bytes."""

    media_type: str
    digest: Digest
    size: int


class BundleImage(Struct, frozen=True, order=True):
    """An image by its full name.

    `name` has the upstream: `quay.io/org/app:1`, or `quay.io/org/app@sha256:...` without a tag. `root` is the
    manifest or the index that the name stands for. `confirmed`: time at which the upstream last confirmed the
    tag, in seconds since 1970, 0 if unknown. The time is part of the bundle's bytes: an exporter that wants
    equal bytes from two exports of the same content must give the same time.
    """

    name: str
    root: ContentDescriptor
    confirmed: int = 0

    @property
    def repository(self) -> str:
        """The name without tag and digest: `quay.io/org/app`."""
        return split_name(self.name)[0]

    @property
    def tag(self) -> str:
        """The tag, "" for an image that is named by digest."""
        return split_name(self.name)[1]


class BundleManifest(Struct, frozen=True):
    """A manifest or an index, byte for byte as its upstream sent it."""

    data: bytes
    media_type: str


class BundleContents(Struct, frozen=True):
    """All that goes into a bundle.

    `manifests`: every manifest and index of the images and their referrers. An index's children that are not
    among them are platforms left out. `blobs`: sizes in bytes of the blobs to carry. `assumed`: blobs that
    are not carried, because the receiver has them. `lacking`: blobs that the exporter lacks too. A blob that
    is needed must be in one of the three.
    """

    images: tuple[BundleImage, ...]
    manifests: Mapping[Digest, BundleManifest]
    blobs: Mapping[Digest, int]
    assumed: frozenset[Digest] = frozenset()
    lacking: frozenset[Digest] = frozenset()


def split_name(name: str) -> tuple[str, str, str]:
    """Split a full name into repository, tag and digest; the latter two are "" where the name has none."""
    rest, _, digest = name.partition("@")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        return rest, "", digest
    return head, tag, digest


def check_name(name: str, entry: str = "") -> None:
    """Raise BundleError, which names `entry`, unless a name is full: host, path, and a tag or a digest."""
    repository, tag, digest = split_name(name)
    host, slash, path = repository.partition("/")
    known = bool(tag) != bool(digest) and (not tag or TAG.fullmatch(tag) is not None)
    if not (host and slash and path and known and name.isprintable()) or " " in name:
        raise BundleError(f"{name!r} is not a full name of an image, such as quay.io/org/app:1", entry)
