"""An image in a fake registry that each client can run: Docker and containerd check what they unpack."""

import gzip
import json
import random
from dataclasses import dataclass
from typing import Any

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.e2e.images import tar_of
from tests.fakes.content import CONFIG_TYPE, LAYER_TYPE, descriptor
from tests.fakes.registry import FakeRegistry

X = "library/x"
# Bytes of the layer: enough for several spans of a download with the limits of these tests.
LAYER_BYTES = 1_500_000


@dataclass(frozen=True)
class Pullable:
    """Digests and bytes of an image with the tag `t` of repository X."""

    manifest: Digest
    manifest_data: bytes
    config: Digest
    config_data: bytes
    layer: Digest
    layer_data: bytes

    @property
    def digests(self) -> tuple[str, ...]:
        """All that a client has after a pull."""
        return (str(self.manifest), str(self.config), str(self.layer))


def add_image(fake: FakeRegistry, seed: str, claimed: int = 0) -> Pullable:
    """Add an image with a layer of its own; its manifest says `claimed` bytes too many of the layer."""
    tar = tar_of({"noise": random.Random(seed).randbytes(LAYER_BYTES)})
    layer = gzip.compress(tar, 0, mtime=0)
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(tar))]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    entry = {**descriptor(LAYER_TYPE, layer), "size": len(layer) + claimed}
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [entry],
    }
    data = json.dumps(document).encode()
    return Pullable(
        fake.add_manifest(X, data, tag="t"),
        data,
        fake.add_blob(X, config),
        config,
        fake.add_blob(X, layer),
        layer,
    )
