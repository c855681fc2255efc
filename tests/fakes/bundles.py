"""Images made up in memory, as contents of a bundle, and the blobs that they need."""

import gzip
import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mirror.bundle.archives.archive import Archive
from mirror.bundle.model import BundleContents, BundleImage, BundleManifest, ContentDescriptor
from mirror.bundle.plan import BundlePlan, Slice
from mirror.bundle.writer import write
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"


def random_bytes(size: int, seed: int) -> bytes:
    """Return bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def layer_tar(name: str, data: bytes) -> bytes:
    """Return a layer of one file, uncompressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class Shelf:
    """Blobs and manifests, by digest; a place to make images up."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.manifests: dict[Digest, BundleManifest] = {}

    def blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[digest] = data
        return digest

    def manifest(self, document: Mapping[str, Any]) -> ContentDescriptor:
        """Keep a manifest; return its descriptor."""
        data = json.dumps(document).encode()
        digest = Digest.of(data)
        self.manifests[digest] = BundleManifest(data, document["mediaType"])
        return ContentDescriptor(document["mediaType"], digest, len(data))

    def layer(self, data: bytes, media_type: str = LAYER) -> dict[str, Any]:
        """Keep a blob; return its descriptor as JSON."""
        return {"mediaType": media_type, "digest": str(self.blob(data)), "size": len(data)}

    def image(self, layers: Sequence[bytes], architecture: str = "amd64") -> ContentDescriptor:
        """Keep an image of these layers, which need not be tars."""
        config = json.dumps({"os": "linux", "architecture": architecture, "layers": len(layers)}).encode()
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": self.layer(config, CONFIG),
                "layers": [self.layer(each) for each in layers],
            }
        )

    def runnable(self, files: Mapping[str, bytes], architecture: str = "amd64") -> ContentDescriptor:
        """Keep an image of one layer for each file, with the config that programs check."""
        tars = [layer_tar(name, data) for name, data in files.items()]
        config = {
            "os": "linux",
            "architecture": architecture,
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(each)) for each in tars]},
        }
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": self.layer(json.dumps(config).encode(), CONFIG),
                "layers": [self.layer(gzip.compress(each, mtime=0)) for each in tars],
            }
        )

    def index(self, children: Mapping[str, ContentDescriptor]) -> ContentDescriptor:
        """Keep an index of images by architecture."""
        entries = [
            {**as_json(child), "platform": {"os": "linux", "architecture": architecture}}
            for architecture, child in children.items()
        ]
        return self.manifest({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})

    def referrer(self, subject: ContentDescriptor, data: bytes) -> ContentDescriptor:
        """Keep an artifact that refers to another manifest, such as a signature."""
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": "application/vnd.test.signature",
                "config": self.layer(b"{}", EMPTY),
                "layers": [self.layer(data, "application/vnd.test.signature.part")],
                "subject": as_json(subject),
            }
        )

    def contents(
        self, images: Mapping[str, ContentDescriptor], assumed: frozenset[Digest] = frozenset()
    ) -> BundleContents:
        """Return all that is here as a bundle with these images by name, without the blobs `assumed`."""
        return BundleContents(
            images=tuple(BundleImage(name, root) for name, root in images.items()),
            manifests=self.manifests,
            blobs={digest: len(data) for digest, data in self.blobs.items() if digest not in assumed},
            assumed=assumed,
        )

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob."""
        return io.BytesIO(self.blobs[digest])

    def written(self, plan: BundlePlan) -> bytes:
        """Return the bytes of a plan."""
        out = io.BytesIO()
        write(plan, self.open, out)
        return out.getvalue()


def as_json(content: ContentDescriptor) -> dict[str, Any]:
    """Return a descriptor as JSON."""
    return {"mediaType": content.media_type, "digest": str(content.digest), "size": content.size}


def two_platforms(shelf: Shelf) -> BundleContents:
    """Return an index of two platforms with a signature, and an image of one platform that shares a layer."""
    shared = random_bytes(5000, 1)
    index = shelf.index(
        {
            "amd64": shelf.image([shared, random_bytes(70_000, 2)]),
            "arm64": shelf.image([random_bytes(900, 3)], "arm64"),
        }
    )
    shelf.referrer(index, b"signed")
    single = shelf.image([shared, random_bytes(300_000, 4)])
    return shelf.contents({"quay.io/org/app:1": index, "docker.io/library/one:2": single})


class Taken:
    """A place for proven contents, in memory."""

    def __init__(self) -> None:
        self.contents: dict[Digest, bytes] = {}
        self.pieces: dict[Slice, bytes] = {}
        self.aborted = 0

    def sink(self, content: Slice) -> "MemorySink":
        return MemorySink(self, content)

    def take(self, archive: Archive) -> "Taken":
        """Read an archive to its end, and keep all contents of it."""
        for found in archive.contents():
            found.stream_to(self.sink(found.slice))
        return self

    def whole(self) -> dict[Digest, bytes]:
        """Return contents, and the blobs whose pieces are all here."""
        joined: dict[Digest, bytes] = {}
        for piece, data in sorted(self.pieces.items()):
            joined[piece.digest] = joined.get(piece.digest, b"") + data
        return self.contents | {digest: data for digest, data in joined.items() if Digest.of(data) == digest}


class MemorySink:
    """A sink that keeps bytes when they are committed."""

    def __init__(self, taken: Taken, content: Slice) -> None:
        self._taken = taken
        self._content = content
        self._data = bytearray()

    def write(self, data: memoryview, /) -> None:
        self._data += data

    def take(self, _file: BinaryIO, _path: Path | None, /) -> None:
        """Take nothing: the bytes are kept in memory."""

    def commit(self) -> None:
        if self._content.whole:
            self._taken.contents[self._content.digest] = bytes(self._data)
        else:
            self._taken.pieces[self._content] = bytes(self._data)

    def abort(self) -> None:
        self._taken.aborted += 1
