"""registry-mirror.json: the bundle's own manifest, with all that index.json cannot say.

Every part of a bundle has the same document but for the number of the part. Digests are texts, lists are
sorted, and no time is in it but the times of `BundleImage.confirmed`, so that the same content gives the same
bytes.
"""

import hashlib
from itertools import chain

import msgspec
from msgspec import Struct

from mirror.bundle.errors import BundleError, Damaged, Unsupported
from mirror.bundle.graph import Graph, links_of
from mirror.bundle.model import BundleContents, BundleImage, ContentDescriptor, check_name
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.media_type import is_media_type

NAME = "registry-mirror.json"
FORMAT = 1

# Longest document that is written or read. 100,000 blobs take 9 MiB, and 25 MB of memory when they are read.
MOST_BYTES = 24 * 1024 * 1024

# Last time that a tag can have been confirmed: the year 9999, in seconds.
LATEST = 253_402_300_799


class Platform(Struct, frozen=True, omit_defaults=True):
    """A platform of an index that was left out."""

    digest: str
    platform: str = ""


class Image(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image of the bundle: its full name, the descriptor of its root, and the platforms left out."""

    name: str
    media_type: str
    digest: str
    size: int
    absent: tuple[Platform, ...] = ()
    confirmed: int = 0

    def image(self) -> BundleImage:
        """Return the image as the exporter gave it. Raises BundleError."""
        check_name(self.name, NAME)
        if not 0 <= self.confirmed <= LATEST:
            raise BundleError(f"{self.name} is confirmed at no time", NAME)
        root = ContentDescriptor(checked_type(self.media_type), checked_digest(self.digest), self.size)
        return BundleImage(self.name, root, self.confirmed)


class ListedManifest(Struct, frozen=True, rename="camel"):
    """The descriptor of a manifest of the bundle."""

    digest: str
    media_type: str
    size: int


class Base(Struct, frozen=True):
    """Blobs that the receiver is assumed to have: their number, and the SHA-256 of their sorted digests."""

    count: int
    sha256: str


class Piece(Struct, frozen=True, omit_defaults=True, array_like=True):
    """A blob, or `length` bytes of it from `offset` on, as a part carries it; length -1: the whole blob."""

    digest: str
    size: int
    offset: int = 0
    length: int = -1


class BundlePart(Struct, frozen=True):
    """The content of one part. `sha256` proves the content: see `mirror.bundle.parts`."""

    sha256: str
    blobs: tuple[Piece, ...]


class Document(Struct, frozen=True, omit_defaults=True):
    """The bundle's own manifest.

    `bundle`: name of the bundle, the SHA-256 of all that is the same in its parts. `part`: number of this
    part, from 1. `referrers`: digests of referrers by their subject. `links`: digests of manifests by the
    repository that has them; a repository also has the blobs of its manifests, but for those in `lacking`:
    the exporter had not got them, and cannot say.
    """

    format: int
    bundle: str
    part: int
    images: tuple[Image, ...]
    manifests: tuple[ListedManifest, ...]
    parts: tuple[BundlePart, ...]
    links: dict[str, tuple[str, ...]]
    referrers: dict[str, tuple[str, ...]] = {}
    base: Base | None = None
    lacking: tuple[str, ...] = ()

    def carried(self) -> dict[Digest, int]:
        """Return the sizes of all blobs that the parts together carry. Raises BundleError."""
        return {checked_digest(each.digest): each.size for part in self.parts for each in part.blobs}

    def encoded(self) -> bytes:
        """Return the document's bytes."""
        return msgspec.json.encode(self, order="deterministic") + b"\n"


def document_of(contents: BundleContents, graph: Graph) -> Document:
    """Return the document of a bundle without its parts."""
    return Document(
        format=FORMAT,
        bundle="",
        part=0,
        images=tuple(_image(each, graph) for each in sorted(contents.images)),
        manifests=_manifests(contents),
        parts=(),
        links={name: tuple(map(str, each)) for name, each in links_of(contents.images, graph).items()},
        referrers={str(key): tuple(map(str, found)) for key, found in sorted(graph.referrers().items())},
        base=_base(contents.assumed),
        lacking=tuple(map(str, sorted(contents.lacking))),
    )


def with_parts(document: Document, parts: tuple[BundlePart, ...]) -> Document:
    """Return the document of part 1, named. Raises BundleError if it is longer than MOST_BYTES."""
    whole = msgspec.structs.replace(document, parts=parts)
    data = whole.encoded()
    if len(data) > MOST_BYTES:
        raise BundleError("too many blobs for one bundle: export some of the images now, and the others then")
    return msgspec.structs.replace(whole, bundle=hashlib.sha256(data).hexdigest(), part=1)


def decode(data: bytes) -> Document:
    """Return the document of these bytes. Raises BundleError, Unsupported for a later format."""
    try:
        version = msgspec.json.decode(data, type=_Version).format
        if version != FORMAT:
            raise Unsupported(f"format {version} of bundles; this program reads format {FORMAT}", NAME)
        document = msgspec.json.decode(data, type=Document)
        _check(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"not the document of a bundle: {error}", NAME) from None
    return document


def checked_digest(text: str) -> Digest:
    """Return a digest of a document. Raises BundleError."""
    try:
        return Digest.parse(text)
    except RegistryError as error:
        raise BundleError(error.message, NAME) from None


def checked_type(text: str) -> str:
    """Return a media type of a document. Raises BundleError."""
    if not is_media_type(text):
        raise BundleError(f"{text[:100]!r} is not a media type", NAME)
    return text


class _Version(Struct):
    format: int


def _check(document: Document) -> None:
    """Raise BundleError unless numbers of parts, digests, sizes and the SHA-256 of the document hold."""
    if not 1 <= document.part <= len(document.parts):
        raise BundleError(f"part {document.part} of {len(document.parts)}", NAME)
    for manifest in document.manifests:
        checked_digest(manifest.digest)
        checked_type(manifest.media_type)
    for piece in (each for part in document.parts for each in part.blobs):
        length = piece.size if piece.length < 0 else piece.length
        if not 0 <= piece.offset <= piece.offset + length <= piece.size:
            raise BundleError(f"a piece of {piece.digest[:80]} is outside the blob", NAME)
    whole = msgspec.structs.replace(document, bundle="", part=0)
    if hashlib.sha256(whole.encoded()).hexdigest() != document.bundle:
        raise Damaged("the document has another SHA-256 than it says; damaged, or edited", NAME)
    named = chain(
        (each.digest for part in document.parts for each in part.blobs),
        document.lacking,
        document.referrers,
        *document.links.values(),
        *document.referrers.values(),
    )
    for digest in named:
        checked_digest(digest)
    for image in document.images:
        image.image()


def _image(image: BundleImage, graph: Graph) -> Image:
    root = image.root
    absent = tuple(Platform(str(each.digest), each.platform) for each in graph.reach(root.digest).absent)
    return Image(image.name, root.media_type, str(root.digest), root.size, absent, image.confirmed)


def _manifests(contents: BundleContents) -> tuple[ListedManifest, ...]:
    items = sorted(contents.manifests.items())
    return tuple(ListedManifest(str(digest), each.media_type, len(each.data)) for digest, each in items)


def _base(assumed: frozenset[Digest]) -> Base | None:
    if not assumed:
        return None
    hasher = hashlib.sha256()
    for digest in sorted(assumed):
        hasher.update(f"{digest}\n".encode())
    return Base(len(assumed), hasher.hexdigest())
