"""Plans: the members of a bundle's tar in order, with their offsets and the size of the whole.

The order: oci-layout, index.json, registry-mirror.json, manifest.json where it is unambiguous, manifests by
size, blobs by digest. All of it follows from the contents, so that an interrupted export is resumed by
offset, and two exports of the same content are equal, byte for byte.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import accumulate

import msgspec
from msgspec import Struct

from mirror.bundle import layout
from mirror.bundle.document import NAME, Document, Part, Piece, document_of
from mirror.bundle.errors import BundleError
from mirror.bundle.graph import Graph, blobs_of
from mirror.bundle.model import BundleContents, check_name
from mirror.bundle.tar_format import END, header, padding
from mirror.oci.digest import Digest

# Folder of pieces of blobs that are split over parts.
PIECES = "registry-mirror/pieces"

# "<64 hex digits>\n"
SUM_SIZE = 65


class Slice(Struct, frozen=True, order=True):
    """`length` bytes of a blob of `size` bytes, from `offset` on."""

    digest: Digest
    size: int
    offset: int
    length: int

    @property
    def whole(self) -> bool:
        """True for a slice that is all of the blob."""
        return self.length == self.size

    @property
    def piece(self) -> Piece:
        """The slice as the document has it."""
        whole = Piece(str(self.digest), self.size)
        return whole if self.whole else Piece(whole.digest, self.size, self.offset, self.length)


class PieceSum(Struct, frozen=True):
    """SHA-256 of a slice, as text: the member after a piece, because its blob's digest cannot prove it."""

    slice: Slice


class Member(Struct, frozen=True):
    """A file of the tar: its path, its size in bytes, and where its bytes come from."""

    path: str
    size: int
    source: bytes | Slice | PieceSum

    @property
    def header(self) -> bytes:
        """The bytes before the content."""
        return header(self.path, self.size)

    @property
    def length(self) -> int:
        """The number of bytes with header and padding."""
        return len(self.header) + self.size + padding(self.size)


class Plan(Struct, frozen=True):
    """A tar before it is written. `size` is that of the whole file, in bytes."""

    document: Document
    members: tuple[Member, ...]
    size: int

    def offsets(self) -> Iterator[int]:
        """Yield the offset of each member's header."""
        yield from accumulate((each.length for each in self.members[:-1]), initial=0)


def make_plan(contents: BundleContents) -> Plan:
    """Return the plan of a bundle in one tar. Raises BundleError for contents that do not fit together."""
    check_contents(contents)
    slices = [Slice(digest, size, 0, size) for digest, size in carried_blobs(contents)]
    return plan_part(contents, document_of(contents, (part_of(slices),)), slices)


def carried_blobs(contents: BundleContents) -> list[tuple[Digest, int]]:
    """Return the blobs to carry and their sizes, by digest, without those that are manifests too."""
    return [
        (digest, size) for digest, size in sorted(contents.blobs.items()) if digest not in contents.manifests
    ]


def plan_part(contents: BundleContents, document: Document, slices: Iterable[Slice]) -> Plan:
    """Return the plan of the part that `document` says it is, which carries `slices`."""
    ordered = sorted(slices)
    members = (*_head(contents, document, ordered), *_manifests(contents))
    members += tuple(member for each in ordered for member in _carried(each))
    return Plan(document, members, sum(each.length for each in members) + len(END))


def part_of(slices: Iterable[Slice]) -> Part:
    """Return the entry of a part in the document. Its SHA-256 is that of the list of its pieces."""
    pieces = tuple(each.piece for each in sorted(slices))
    return Part(hashlib.sha256(msgspec.json.encode(pieces)).hexdigest(), pieces)


def check_contents(contents: BundleContents) -> None:
    """Raise BundleError unless each image has its root, each manifest an image, each blob a place.

    Digests of manifests are proven here; those of blobs when they are written.
    """
    names = [image.name for image in contents.images]
    for name in names:
        check_name(name)
    if len(set(names)) != len(names):
        raise BundleError(f"{next(each for each in names if names.count(each) > 1)} is twice in the bundle")
    for digest, manifest in contents.manifests.items():
        if Digest.of(manifest.data, digest.algorithm) != digest:
            raise BundleError(f"the manifest {digest} has other bytes")
    graph = Graph(contents.manifests)
    for image in contents.images:
        _check_image(image.name, image.root.digest, contents, graph)
    reach = graph.reach(*(each.root.digest for each in contents.images), referrers=True)
    for digest in sorted(contents.manifests.keys() - set(reach.manifests)):
        raise BundleError(f"the manifest {digest} belongs to no image")
    for digest in sorted(contents.blobs.keys() - reach.blobs.keys() - contents.manifests.keys()):
        raise BundleError(f"the blob {digest} belongs to no image")


def _check_image(name: str, root: Digest, contents: BundleContents, graph: Graph) -> None:
    if root not in contents.manifests:
        raise BundleError(f"the manifest {root} of {name} is missing")
    for digest in graph.reach(root, referrers=True).manifests:
        for blob in blobs_of(graph.manifest(digest)):
            known = contents.blobs.get(blob.digest)
            elsewhere = blob.digest in contents.assumed or blob.digest in contents.lacking
            if known is None and not elsewhere and not blob.urls:
                raise BundleError(f"the blob {blob.digest} of {name} is missing")
            if known not in (None, blob.size):
                raise BundleError(
                    f"the blob {blob.digest} of {name} has {known} bytes instead of {blob.size}"
                )


def _head(contents: BundleContents, document: Document, slices: list[Slice]) -> Iterator[Member]:
    graph = Graph(contents.manifests)
    present = {each.digest for each in slices if each.whole}
    images = layout.named_images(list(contents.images), graph, present.__contains__)
    docker = layout.manifest_json(images, graph)
    yield _literal(layout.LAYOUT, layout.LAYOUT_BYTES)
    yield _literal(layout.INDEX, layout.index_json(images))
    yield _literal(NAME, document.encoded())
    if docker is not None:
        yield _literal(layout.DOCKER, docker)


def _manifests(contents: BundleContents) -> Iterator[Member]:
    for digest, manifest in sorted(contents.manifests.items(), key=lambda item: (len(item[1].data), item[0])):
        yield _literal(layout.blob_path(digest), manifest.data)


def _carried(piece: Slice) -> Iterator[Member]:
    """Yield the member of a blob; for a piece of a blob, also that of its SHA-256."""
    if piece.whole:
        yield Member(layout.blob_path(piece.digest), piece.length, piece)
        return
    path = f"{PIECES}/{piece.digest.algorithm}/{piece.digest.encoded}/{piece.offset}"
    yield Member(path, piece.length, piece)
    yield Member(f"{path}.sha256", SUM_SIZE, PieceSum(piece))


def _literal(path: str, data: bytes) -> Member:
    return Member(path, len(data), data)
