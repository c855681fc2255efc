"""Content of the bench: synthetic images, as plain files under the paths that a registry serves.

    site/v2/<repository>/blobs/<digest>
    site/v2/<repository>/manifests/<tag or digest>

One folder is the storage of the origin and of its CDN, and the document root of the static nginx.
"""

import hashlib
import json
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.e2e.images import OCI_CONFIG, OCI_LAYER, digest_of

MIB = 1024 * 1024
SMALL, MEDIUM = 2048, 512 * 1024

# Layers of an image of small layers, and the manifests that are requested before the layers of one: with one,
# 32 connections request a layer in eleven before its manifest has arrived, which no client does.
LAYERS, AHEAD = 20, 4

# Descriptors of a huge index: nearly as many as fit into the 4 MiB of a manifest.
DESCRIPTORS = 26_900

# Layers of the image for the slow line, in MiB: uneven, as real ones are, 226 together.
WAN_LAYERS = (128, 48, 24, 16, 8, 2)


@dataclass(frozen=True)
class Blob:
    repository: str
    digest: str
    size: int

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/blobs/{self.digest}"


@dataclass(frozen=True)
class Manifest(Blob):
    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.digest}"


@dataclass(frozen=True)
class Image:
    repository: str
    tag: str
    digest: str
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def by_tag(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.tag}"

    @property
    def by_digest(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.digest}"


class Site:
    """Images under `root`, each made at its first use."""

    def __init__(self, root: Path, quick: bool) -> None:
        self.root = root
        self.tags: dict[str, str] = {}  # path of a manifest by tag -> digest
        self._quick = quick
        self._small: list[Blob] = []
        self._medium: list[Blob] = []
        self._large: list[Blob] = []

    @cached_property
    def warm(self) -> Image:
        """Image of one layer of 100 MiB, and a config of 2 KiB."""
        return self._image("library/warm", [100])

    @cached_property
    def giant(self) -> Image:
        """Image of one layer of 1 GiB; the tag `token` names an image without it."""
        self._tagged("library/giant", "token", [])
        return self._image("library/giant", [256 if self._quick else 1024])

    @cached_property
    def herd(self) -> Image:
        """Image of one layer of 100 MiB, not that of `warm`."""
        return self._image("library/herd", [100])

    @cached_property
    def carried(self) -> Image:
        """Image of eight layers of 256 MiB, all different."""
        return self._image("library/carried", [(64 if self._quick else 256) + each for each in range(8)])

    @cached_property
    def wan(self) -> Image:
        """Image of six layers, for the slow line."""
        sizes = [max(1, each // 8) for each in WAN_LAYERS] if self._quick else WAN_LAYERS
        return self._image("library/wan", sizes)

    @cached_property
    def many(self) -> list[Image]:
        """Images of eight layers of 1 to 8 MiB, all different."""
        return [
            self._image(f"library/many{number}", range(1, 9)) for number in range(8 if self._quick else 100)
        ]

    def small(self, count: int) -> list[Blob]:
        """Return `count` blobs of 2 KiB in one repository, always the same."""
        for number in range(len(self._small), count):
            data = random.Random(f"small {number}").randbytes(SMALL)
            self._small.append(self._blob("library/small", [data]))
        return self._small[:count]

    def small_pulls(self, count: int) -> list[Blob]:
        """Return the requests of clients that pull `count` layers of 2 KiB: each manifest, then its image.

        They are AHEAD manifests ahead, so that no layer is requested before its manifest has arrived.
        """
        layers, asked, named = self.small(count), list[Blob](), deque[list[Blob]]()
        for start in range(0, count, LAYERS):
            image = self._tagged("library/small", str(start), layers[start : start + LAYERS])
            size = (self.root / image.by_digest[1:]).stat().st_size
            asked.append(Manifest(image.repository, image.digest, size))
            named.append([image.config, *image.layers])
            if len(named) > AHEAD:
                asked += named.popleft()
        return asked + list(chain.from_iterable(named))

    def medium(self, count: int) -> list[Blob]:
        """Return `count` blobs of 512 KiB, too large for the mirror's memory cache."""
        noise = random.Random("medium").randbytes(MEDIUM - 8)
        for number in range(len(self._medium), count):
            self._medium.append(self._blob("library/medium", [number.to_bytes(8, "big"), noise]))
        return self._medium[:count]

    def large(self, count: int) -> list[Blob]:
        """Return `count` blobs of 6 MiB, always the same; their repository has no manifest."""
        for number in range(len(self._large), count):
            self._large.append(self._blob("library/large", _noise(f"large {number}", 6)))
        return self._large[:count]

    @cached_property
    def plain(self) -> Image:
        """Image of a config of 2 KiB, and no layer."""
        return self._tagged("library/plain", "1", [])

    def index(self, number: int) -> Manifest:
        """Return a huge index of manifests that do not exist, in a repository of indexes."""
        names = (hashlib.sha256(b"%d %d" % (number, each)).hexdigest() for each in range(DESCRIPTORS))
        manifests = [{"mediaType": OCI_MANIFEST, "size": 700, "digest": f"sha256:{name}"} for name in names]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        data = json.dumps(document, separators=(",", ":")).encode()
        index = Manifest("huge/index", digest_of(data), len(data))
        self._place(index.path).write_bytes(data)
        return index

    def image(self, repository: str, sizes: Sequence[int]) -> Image:
        """Make an image with layers of these sizes, in MiB; equal sizes are the same layer."""
        return self._image(repository, sizes)

    def file(self, blob: Blob) -> Path:
        return self.root / blob.path[1:]

    def _image(self, repository: str, sizes: Sequence[int]) -> Image:
        """Make an image with layers of these sizes, in MiB."""
        layers = [self._blob(repository, _noise(f"{repository}{size}", size)) for size in sizes]
        return self._tagged(repository, "1", layers)

    def _tagged(self, repository: str, tag: str, layers: Sequence[Blob]) -> Image:
        labels = {"Labels": {"padding": random.Random(repository + tag).randbytes(900).hex()}}
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": labels,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
        config = self._blob(repository, [json.dumps(document).encode()])
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(OCI_CONFIG, config),
            "layers": [_descriptor(OCI_LAYER, layer) for layer in layers],
        }
        data = json.dumps(manifest).encode()
        image = Image(repository, tag, digest_of(data), config, tuple(layers))
        self.tags[image.by_tag] = image.digest
        for path in (image.by_tag, image.by_digest):
            self._place(path).write_bytes(data)
        return image

    def _blob(self, repository: str, parts: Iterable[bytes]) -> Blob:
        """Write a blob and name it by its digest."""
        hasher, size = hashlib.sha256(), 0
        unnamed = self._place(f"/v2/{repository}/blobs/unnamed")
        with unnamed.open("wb") as file:
            for part in parts:
                hasher.update(part)
                size += file.write(part)
        blob = Blob(repository, f"sha256:{hasher.hexdigest()}", size)
        unnamed.rename(self.file(blob))
        return blob

    def _place(self, path: str) -> Path:
        place = self.root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _noise(seed: str, mebibytes: int) -> Iterator[bytes]:
    """Yield different pieces of 1 MiB: noise that is made once, behind a number."""
    noise = random.Random(seed).randbytes(MIB)
    for number in range(mebibytes):
        yield number.to_bytes(8, "big") + noise[8:]


def _descriptor(media_type: str, blob: Blob) -> dict[str, object]:
    return {"mediaType": media_type, "size": blob.size, "digest": blob.digest}
