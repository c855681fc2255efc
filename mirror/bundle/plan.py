"""Plans: the members of a bundle's tar in order, with their offsets and the size of the whole.

The order: oci-layout, index.json, registry-mirror.json, manifest.json where it is unambiguous, manifests by
size, blobs by digest. All of it follows from the contents, so that an interrupted export is resumed by
offset, and two exports of the same content are equal, byte for byte.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import msgspec
from msgspec import Struct

from mirror.bundle import layout
from mirror.bundle.document import NAME, BundlePart, Document, Piece, decode, document_of, with_parts
from mirror.bundle.errors import BundleError
from mirror.bundle.graph import Graph, blobs_of
from mirror.bundle.model import BundleContents, check_name
from mirror.bundle.tar_format import END, header, header_size, padding
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
        return header_size(self.path, self.size) + self.size + padding(self.size)


class Members(Struct, frozen=True):
    """The members of a tar: documents and manifests, then blobs, each made when it is asked for."""

    literals: tuple[Member, ...]
    slices: tuple[Slice, ...]

    def __iter__(self) -> Iterator[Member]:
        yield from self.literals
        for each in self.slices:
            yield from _carried(each)


class BundlePlan(Struct, frozen=True):
    """A tar before it is written. `size` is that of the whole file, in bytes."""

    members: Members
    size: int

    @property
    def document(self) -> Document:
        """The bundle's own manifest, decoded from its bytes: it is large, and seldom asked for."""
        return decode(cast("bytes", next(each.source for each in self.members if each.path == NAME)))

    def offsets(self) -> Iterator[int]:
        """Yield the offset of each member's header."""
        at = 0
        for each in self.members:
            yield at
            at += each.length


class Planner:
    """Contents that fit together, and the plans of parts of them. Raises BundleError for other contents."""

    def __init__(self, contents: BundleContents) -> None:
        self._contents = contents
        self._graph = Graph(contents.manifests, contents.blobs)
        check_contents(contents, self._graph)
        self._document = document_of(contents, self._graph)
        self._manifests = tuple(_manifests(contents))

    def blobs(self) -> list[tuple[Digest, int]]:
        """Return the blobs to carry and their sizes, by digest, without those that are manifests too."""
        blobs, manifests = self._contents.blobs, self._contents.manifests
        return [(digest, size) for digest, size in sorted(blobs.items()) if digest not in manifests]

    def plans(self, parts: Sequence[Iterable[Slice]]) -> list[BundlePlan]:
        """Return the plans of all parts of a bundle, each with the slices that it carries."""
        ordered = [sorted(each) for each in parts]
        document = with_parts(self._document, tuple(map(part_of, ordered)))
        return [
            self._plan(msgspec.structs.replace(document, part=number), slices)
            for number, slices in enumerate(ordered, 1)
        ]

    def _plan(self, document: Document, slices: list[Slice]) -> BundlePlan:
        members = Members((*self._head(document, slices), *self._manifests), tuple(slices))
        return BundlePlan(members, sum(each.length for each in members) + len(END))

    def _head(self, document: Document, slices: list[Slice]) -> Iterator[Member]:
        present = {each.digest for each in slices if each.whole}
        images = layout.named_images(list(self._contents.images), self._graph, present.__contains__)
        docker = layout.manifest_json(images, self._graph)
        yield _literal(layout.LAYOUT, layout.LAYOUT_BYTES)
        yield _literal(layout.INDEX, layout.index_json(images))
        yield _literal(NAME, document.encoded())
        if docker is not None:
            yield _literal(layout.DOCKER, docker)


def make_plan(contents: BundleContents) -> BundlePlan:
    """Return the plan of a bundle in one tar. Raises BundleError for contents that do not fit together."""
    planner = Planner(contents)
    return planner.plans([[Slice(digest, size, 0, size) for digest, size in planner.blobs()]])[0]


def part_of(slices: list[Slice]) -> BundlePart:
    """Return the entry of a part in the document. Its SHA-256 is that of the list of its pieces."""
    pieces = tuple(each.piece for each in slices)
    return BundlePart(hashlib.sha256(msgspec.json.encode(pieces)).hexdigest(), pieces)


def check_contents(contents: BundleContents, graph: Graph) -> None:
    """Raise BundleError unless each image has its root, each manifest an image, each blob a place.

    Digests of manifests are proven here; those of blobs when they are written. The size in a manifest may be
    wrong: the blob's own counts.
    """
    names = [image.name for image in contents.images]
    for name in names:
        check_name(name)
    if len(set(names)) != len(names):
        raise BundleError(f"{next(each for each in names if names.count(each) > 1)} is twice in the bundle")
    for digest, manifest in contents.manifests.items():
        if Digest.of(manifest.data, digest.algorithm) != digest:
            raise BundleError(f"the manifest {digest} has other bytes")
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
            elsewhere = blob.digest in contents.assumed or blob.digest in contents.lacking or blob.urls
            if blob.digest not in contents.blobs and not elsewhere:
                raise BundleError(f"the blob {blob.digest} of {name} is missing")


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
