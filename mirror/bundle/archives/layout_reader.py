"""Reader of archives in the layout of OCI: bundles, and what skopeo, crane, buildx, oras and docker write."""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import cast

import msgspec
from msgspec import Struct

from mirror.bundle import layout
from mirror.bundle.archives.archive import Kind
from mirror.bundle.archives.entry_source import ArchiveEntry, EntrySource
from mirror.bundle.archives.found import FoundContent, FoundImage, Kept, in_memory, manifest_in
from mirror.bundle.archives.limits import Limits
from mirror.bundle.document import NAME as DOCUMENT
from mirror.bundle.document import Document, Piece, decode
from mirror.bundle.errors import BundleError, Damaged, EntryRefused, Unsupported
from mirror.bundle.graph import Graph
from mirror.bundle.model import BundleImage, BundleManifest, ContentDescriptor, split_name
from mirror.bundle.plan import PIECES, SUM_SIZE, Slice
from mirror.bundle.pump import ByteSource, Pump, read_full
from mirror.oci.digest import ENCODED, Digest
from mirror.oci.errors import RegistryError

BLOB = re.compile(r"blobs/([^/]+)/([^/]+)")
PIECE = re.compile(rf"{PIECES}/([^/]+)/([^/]+)/([0-9]{{1,18}})(\.sha256)?")

# Files of the form that docker save had before version 25, and that podman and skopeo call docker-archive.
LEGACY = re.compile(r"[0-9a-f]{64}(\.json|\.tar|/VERSION|/json|/layer\.tar)")

# Most names of files to tell the operator about that nothing was made of.
MOST_IGNORED = 20

NO_MANIFEST = (
    "an archive in docker's old form (docker save before version 25, podman save, skopeo docker-archive): it "
    "has no manifest, and its layers are unpacked, so that their digests are not those of any registry. "
    "Nothing of it could be served. Save the image as an OCI archive: "
    "skopeo copy docker-archive:FILE oci-archive:NEW:NAME"
)

# What docker save wrote in place of an index before Docker 25.
OLD_DOCUMENT = "repositories"


class LayoutArchive:
    """An OCI layout, of ours or of another program; see `Archive`."""

    def __init__(self, entries: EntrySource, pump: Pump, limits: Limits) -> None:
        self._entries = entries
        self._files = iter(entries)
        self._pump = pump
        self._limits = limits
        self._kept = Kept(limits.manifests)
        self._documents: dict[str, bytes] = {}  # their SHA-256: some have megabytes
        self._index = b""
        self._seen: dict[Digest | Slice, int] = {}
        self._listed: dict[Digest | Slice, str] = {}
        self._own: dict[Digest, Digest] = {}  # of what is listed, so that no digest is two objects
        self._ignored: dict[str, None] = {}
        self.document: Document | None = None
        self.images: tuple[FoundImage, ...] = ()

    @property
    def kind(self) -> Kind:
        """BUNDLE for an archive with a document of ours."""
        return Kind.LAYOUT if self.document is None else Kind.BUNDLE

    @property
    def manifests(self) -> Mapping[Digest, BundleManifest]:
        """The manifests of the archive."""
        return self._kept.manifests

    @property
    def links(self) -> Mapping[str, tuple[Digest, ...]]:
        """The links of a bundle's document."""
        if self.document is None:
            return {}
        return {name: tuple(map(Digest.parse, each)) for name, each in self.document.links.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """The files that are no part of the format; docker save still writes one of its older format."""
        odd = [each for each in self._ignored if each != OLD_DOCUMENT or self.document is not None]
        return tuple(f"{name}: nothing is made of this file" for name in odd)

    @property
    def exact(self) -> bool:
        """True for a bundle as it was written."""
        return self.document is not None and not self._ignored and self._entries.exact

    def contents(self) -> Iterator[FoundContent]:
        """Yield manifests, blobs and pieces; then look whether the archive is complete."""
        for entry in self._files:
            if entry.name in (layout.LAYOUT, layout.INDEX, layout.DOCKER, DOCUMENT):
                self._take_document(entry)
            elif match := BLOB.fullmatch(entry.name):
                digest = digest_in(match[1], match[2], entry.name)
                yield from self._blob(entry, self._own.get(digest, digest))
            elif match := PIECE.fullmatch(entry.name):
                if match[4] is None:  # the sum is read with its piece, or passed over with it
                    yield self._piece(entry, digest_in(match[1], match[2], entry.name), int(match[3]))
            elif LEGACY.fullmatch(entry.name) or (entry.name == OLD_DOCUMENT and not self._seen):
                raise Unsupported(NO_MANIFEST)
            elif len(self._ignored) < MOST_IGNORED:
                self._ignored[entry.name] = None
        self._finish()

    def _take_document(self, entry: ArchiveEntry) -> None:
        most = self._limits.document if entry.name == DOCUMENT else self._limits.index
        if entry.size > most:
            raise EntryRefused(f"the document has {entry.size} bytes, more than {most}", entry.name)
        data = read_all(entry)
        if self._documents.setdefault(entry.name, sha256(data).digest()) != sha256(data).digest():
            raise EntryRefused("the document is twice in the archive, and differs", entry.name)
        if entry.name == layout.INDEX:
            self._index = data
        if entry.name == DOCUMENT and self.document is None:
            self.document = decode(data)
            self._listed = listed_in(self.document)
            self._own = {each: each for each in self._listed if isinstance(each, Digest)}
            self._refuse_unlisted()

    def _blob(self, entry: ArchiveEntry, digest: Digest) -> Iterator[FoundContent]:
        """Yield the content; prove a second one of the same name, and yield it not again."""
        small = entry.size <= self._limits.small
        data = read_all(entry) if small else b""
        found = self._content(entry, Slice(digest, entry.size, 0, entry.size), data if small else None)
        if digest in self._seen:
            if self._seen[digest] != entry.size:
                raise EntryRefused("the entry is twice in the archive, and differs", entry.name)
            found.verify()
            return
        self._note(digest, entry)
        if small and Digest.of(data, digest.algorithm) == digest:
            found.manifest = self._manifest_of(digest, data, entry.name)
        yield found

    def _piece(self, entry: ArchiveEntry, digest: Digest, offset: int) -> FoundContent:
        if self.document is None:
            raise EntryRefused(f"a piece of a blob before {DOCUMENT}", entry.name)
        for each in self._listed:
            if isinstance(each, Slice) and (each.digest, each.offset, each.length) == (
                digest,
                offset,
                entry.size,
            ):
                self._note(each, entry)
                found = self._content(entry, each, None)
                found.sum_of_piece = lambda: self._sum_after(entry.name)
                return found
        raise EntryRefused(f"the piece is not in {DOCUMENT}", entry.name)

    def _content(self, entry: ArchiveEntry, slice_: Slice, data: bytes | None) -> FoundContent:
        source = entry.source if data is None else in_memory(data)
        found = FoundContent(cast("ByteSource", source), slice_, entry.name, self._pump)
        found.file = None if entry.file is None else (entry.file, None)
        return found

    def _note(self, content: Digest | Slice, entry: ArchiveEntry) -> None:
        if self.document is not None and content not in self._listed:
            raise EntryRefused(f"the content is not in {DOCUMENT}", entry.name)
        self._seen[content] = entry.size

    def _refuse_unlisted(self) -> None:
        """Refuse contents that came before the document and are not in it."""
        for content in self._seen:
            if content not in self._listed:
                raise EntryRefused(f"{content} is not in {DOCUMENT}")

    def _sum_after(self, name: str) -> str:
        entry = next(self._files, None)
        if entry is None or entry.name != f"{name}.sha256" or entry.size != SUM_SIZE:
            raise Damaged("the SHA-256 of the piece does not follow it", name)
        return read_all(entry).decode("ascii", "replace").removesuffix("\n")

    def _manifest_of(self, digest: Digest, data: bytes, entry: str) -> BundleManifest | None:
        stated = self._listed.get(digest, "")
        if stated and not stated.startswith("application/"):
            raise EntryRefused(f"{stated!r} is the media type of no manifest", entry)
        found = BundleManifest(data, stated) if stated else manifest_in(data)
        if self.document is not None and not stated:
            return None  # a blob of the bundle, such as a manifest that an artifact carries as its layer
        if found is not None:
            self._kept.add(digest, found, entry)
        return found

    def _require_root(self, image: BundleImage) -> None:
        """Raise Damaged unless type and size of an image are those of its manifest: clients are told them."""
        found = self._kept.manifests.get(image.root.digest)
        if found is None or (found.media_type, len(found.data)) != (image.root.media_type, image.root.size):
            raise Damaged(f"{image.name} has not the type or the size of its manifest", DOCUMENT)

    def _finish(self) -> None:
        if self.document is not None:
            self._finish_bundle(self.document)
        elif layout.INDEX in self._documents:
            self.images = images_of(self._index)
        elif layout.DOCKER in self._documents:
            raise Unsupported(NO_MANIFEST)
        else:
            raise Unsupported(f"no {layout.INDEX} in it: not an archive of images")

    def _finish_bundle(self, document: Document) -> None:
        """Raise Damaged unless all that the document says is here, and the other documents fit it."""
        lacking = [each for each in self._listed if each not in self._seen]
        if lacking:
            raise Damaged(f"{len(lacking)} contents are missing, such as {lacking[0]}")
        images = [each.image() for each in document.images]
        for each in images:
            self._require_root(each)
        graph = Graph(self._kept.manifests)
        named = layout.named_images(images, graph, self._seen.__contains__)
        expected = {layout.INDEX: layout.index_json(named), layout.DOCKER: layout.manifest_json(named, graph)}
        expected[layout.LAYOUT] = layout.LAYOUT_BYTES
        for name, data in expected.items():
            if self._documents.get(name) != (None if data is None else sha256(data).digest()):
                raise Damaged(f"the document does not fit {DOCUMENT}", name)
        self.images = tuple(FoundImage(each.name, each.root) for each in images)


class _Descriptor(Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None


class _Index(Struct):
    manifests: list[_Descriptor]


def images_of(data: bytes) -> tuple[FoundImage, ...]:
    """Return the images of an index.json. Raises BundleError."""
    try:
        index = msgspec.json.decode(data, type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"not an index of an OCI layout: {error}", layout.INDEX) from None
    return tuple(_image_of(each) for each in index.manifests)


def digest_in(algorithm: str, encoded: str, entry: str) -> Digest:
    """Return the digest that a name states, to be proven. Raises EntryRefused."""
    pattern = ENCODED.get(algorithm)
    if pattern is None or pattern.fullmatch(encoded) is None:
        raise EntryRefused("the name is not a digest by sha256 or sha512", entry)
    return Digest(algorithm, encoded)


def listed_in(document: Document) -> dict[Digest | Slice, str]:
    """Return all that a part has to have: manifests with their media types, blobs and pieces with ""."""
    found: dict[Digest | Slice, str] = {}
    for piece in document.parts[document.part - 1].blobs:
        found[slice_of(piece).digest if piece.length < 0 else slice_of(piece)] = ""
    for manifest in document.manifests:
        found[Digest.parse(manifest.digest)] = manifest.media_type
    return found


def slice_of(piece: Piece) -> Slice:
    """Return the slice of a piece of a document that was checked."""
    length = piece.size if piece.length < 0 else piece.length
    return Slice(Digest.parse(piece.digest), piece.size, piece.offset, length)


def read_all(entry: ArchiveEntry) -> bytes:
    """Return the content of an entry, which is small."""
    buffer = bytearray(entry.size)
    count = read_full(entry.source, memoryview(buffer))
    if count < entry.size:
        raise Damaged(f"{count} bytes instead of {entry.size}", entry.name)
    return bytes(buffer)


def _image_of(descriptor: _Descriptor) -> FoundImage:
    try:
        digest = Digest.parse(descriptor.digest)
    except RegistryError as error:
        raise BundleError(error.message, layout.INDEX) from None
    notes = descriptor.annotations or {}
    name = notes.get(layout.CONTAINERD_NAME) or notes.get(layout.REF_NAME) or ""
    if split_name(name)[2] not in ("", str(digest)):
        name = name.partition("@")[0]
    return FoundImage(name, ContentDescriptor(descriptor.media_type, digest, descriptor.size))
