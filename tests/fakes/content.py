"""Content of a fake registry: repositories with blobs, manifests, tags and referrers."""

import gzip
import json
import random
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@cache
def sample(size: int) -> bytes:
    """Return this many random bytes, one copy for all tests: a worker keeps all the files it imports."""
    return random.Random(size).randbytes(size)


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """Manifest and the media type that it is served with."""

    data: bytes
    media_type: str


@dataclass(slots=True)
class FakeRepository:
    """Blobs, manifests and tags of one repository."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, StoredManifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def manifest(self, reference: str) -> tuple[str, StoredManifest] | None:
        """Return digest and manifest for a tag or a digest."""
        digest = self.tags.get(reference, reference)
        found = self.manifests.get(digest)
        return (digest, found) if found else None

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Return the descriptors of the manifests whose subject is `digest`."""
        found = []
        for name, manifest in self.manifests.items():
            document = json.loads(manifest.data)
            if document.get("subject", {}).get("digest") == digest:
                kind = document.get("artifactType") or document.get("config", {}).get("mediaType")
                found.append({**descriptor(manifest.media_type, manifest.data, name), "artifactType": kind})
        return found


@dataclass(frozen=True, slots=True)
class FakeImage:
    """Digests and bytes of an image in a fake."""

    repository: str
    tag: str | None
    manifest: Digest
    manifest_data: bytes
    config: Digest
    config_data: bytes
    layers: tuple[Digest, ...]
    layers_data: tuple[bytes, ...]

    @property
    def blobs(self) -> tuple[Digest, ...]:
        """Config and layers."""
        return (self.config, *self.layers)

    @property
    def blobs_data(self) -> tuple[bytes, ...]:
        """Bytes of `blobs`."""
        return (self.config_data, *self.layers_data)


def descriptor(media_type: str, data: bytes, digest: str | None = None) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest or str(Digest.of(data)), "size": len(data)}


def image_manifest(config: bytes, layers: list[bytes], subject: dict[str, Any] | None = None) -> bytes:
    """Return an OCI image manifest over these blobs."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [descriptor(LAYER_TYPE, layer) for layer in layers],
    }
    if subject is not None:
        document["subject"] = subject
    return json.dumps(document).encode()


def image_index(manifests: list[bytes], media_type: str = OCI_INDEX) -> bytes:
    """Return an index over image manifests, one architecture each."""
    entries = [
        {**descriptor(OCI_MANIFEST, data), "platform": {"os": "linux", "architecture": f"arch{number}"}}
        for number, data in enumerate(manifests)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()


def some_layers(count: int, size: int = 1000) -> list[bytes]:
    """Return distinct, reproducible gzip layers of a little more than `size` bytes."""
    return [gzip.compress(random.Random(number).randbytes(size), mtime=0) for number in range(count)]
