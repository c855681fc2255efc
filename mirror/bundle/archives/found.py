"""Content that a reader finds: handed out with its proof, or not at all."""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from msgspec import Struct

from mirror.bundle.errors import BundleError, Damaged
from mirror.bundle.graph import MANIFEST_TYPES
from mirror.bundle.model import BundleManifest, ContentDescriptor
from mirror.bundle.plan import Slice
from mirror.bundle.pump import ByteSource, Pump
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, ManifestInvalid, parse_manifest


class Sink(Protocol):
    """A place for content that is not proven yet."""

    def write(self, data: memoryview, /) -> object:
        """Take some bytes, which are valid during the call only."""

    def take(self, file: BinaryIO, path: Path | None, /) -> ByteSource | None:
        """Take a file as a whole without its bytes being written, where the file system can do that.

        Return what will be kept, for its bytes to be proven; None if the bytes are to be written. `path`:
        that of the file, None if it must not be linked.
        """

    def commit(self) -> None:
        """Keep the content: its digest holds."""

    def abort(self) -> None:
        """Drop the content."""


class Discard:
    """A sink for content that is only to be verified."""

    def write(self, data: memoryview, /) -> None:
        """Drop the bytes."""

    def take(self, _file: BinaryIO, _path: Path | None, /) -> None:
        """Take nothing: the bytes are read where they are."""

    def commit(self) -> None:
        """Keep nothing."""

    def abort(self) -> None:
        """Keep nothing."""


class FoundImage(Struct, frozen=True, order=True):
    """A name that an archive gives to a manifest. `name` is as the archive has it.

    Foreign archives have full names (`quay.io/org/app:1`), names without a host (`library/app:1`), bare tags
    (`1`), or none (""). A digest in a name is kept only if it is the root's: `podman save` writes others.
    """

    name: str
    root: ContentDescriptor


class FoundContent:
    """A blob, a manifest, or a piece of a blob, before it is proven.

    Valid until the archive's next content is asked for. `entry`: name in the archive. `file`: its own file in
    a folder, for a sink to take; the path too where a link may be made. `manifest`: the parsed kind of it, if
    it is a manifest; that one is proven already.
    """

    def __init__(self, source: ByteSource, slice_: Slice, entry: str, pump: Pump) -> None:
        self._source = source
        self._pump = pump
        self.slice = slice_
        self.entry = entry
        self.file: tuple[BinaryIO, Path | None] | None = None
        self.manifest: BundleManifest | None = None
        self.sum_of_piece: Callable[[], str] | None = None

    @property
    def digest(self) -> Digest:
        """Digest of the whole blob."""
        return self.slice.digest

    @property
    def size(self) -> int:
        """Bytes that are here: of the blob, or of its piece."""
        return self.slice.length

    def stream_to(self, sink: Sink) -> None:
        """Write all bytes to a sink, and commit it if and only if they are proven; else abort it and raise.

        A blob is proven by its digest. A piece of one is proven by the SHA-256 that follows it in the bundle,
        and the blob by its digest when the pieces are put together. Raises Damaged. The archive's other
        contents can be read afterwards, unless it is cut short.
        """
        try:
            self._copy(sink)
        except BaseException:
            sink.abort()
            raise
        sink.commit()

    def verify(self) -> None:
        """Prove the content without keeping it. Raises Damaged."""
        self.stream_to(Discard())

    def _copy(self, sink: Sink) -> None:
        hasher = self.digest.hasher() if self.slice.whole else hashlib.sha256()
        taken = None if self.file is None else sink.take(*self.file)
        if taken is None:
            count = self._pump.copy(self._source, self.size, [hasher], sink.write)
        else:
            count = self._pump.copy(taken, self.size, [hasher], len)
        if count != self.size:
            raise Damaged(f"{count} bytes instead of {self.size}", self.entry)
        expected = self.digest.encoded if self.sum_of_piece is None else self.sum_of_piece()
        if hasher.hexdigest() != expected:
            raise Damaged("the content has another digest than its name says", self.entry)


class Kept:
    """The manifests of an archive, in memory, up to a number of bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self.manifests: dict[Digest, BundleManifest] = {}

    def add(self, digest: Digest, manifest: BundleManifest, entry: str) -> None:
        """Keep a manifest. Raises BundleError if there are too many bytes of them."""
        if digest not in self.manifests:
            self._size += len(manifest.data)
            self.manifests[digest] = manifest
        if self._size > self._most:
            raise BundleError(f"the manifests of the archive have more than {self._most} bytes", entry)


def manifest_in(data: bytes) -> BundleManifest | None:
    """Return the manifest that these bytes are, with its media type; None if they are something else."""
    if not data[:64].lstrip().startswith(b"{"):
        return None
    with suppress(ManifestInvalid, ValueError):
        manifest = parse_manifest(data, "")
        stated = json_text.parse(data).get("mediaType", "")
        if stated in MANIFEST_TYPES:
            return BundleManifest(data, stated)
        if not stated and manifest.manifests:
            return BundleManifest(data, OCI_INDEX)
        if not stated and manifest.config is not None:
            return BundleManifest(data, OCI_MANIFEST)
    return None


def is_index(manifest: BundleManifest) -> bool:
    """Return whether a manifest is an index by its media type."""
    return manifest.media_type in (OCI_INDEX, DOCKER_LIST)


def in_memory(data: bytes) -> BinaryIO:
    """Return bytes that were read already as a file."""
    return io.BytesIO(data)
