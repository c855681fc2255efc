"""An image that no registry has: the mirror makes it, so a client that gets it uses the mirror.

`registry-mirror-doctor/<marker>:check` is such an image at every upstream; the marker is random, 16 hex
digits. The bytes depend on the marker alone, which makes the digest known beforehand. Nothing is stored.
"""

import hashlib
import io
import json
import re
from functools import lru_cache

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST

FOLDER = "registry-mirror-doctor/"
TAG = "check"

_REPOSITORY = re.compile(r"registry-mirror-doctor/([0-9a-f]{16})")

# Platforms of clients: architecture, and variant if there is one.
PLATFORMS = (
    *(("amd64", ""), ("arm64", "v8"), ("arm", "v7"), ("386", ""), ("ppc64le", ""), ("s390x", "")),
    *(("riscv64", ""), ("loong64", "")),
)


class MarkerImage(Struct, frozen=True):
    """Index of the image, and everything below it by digest."""

    index: Digest
    manifests: dict[Digest, tuple[str, bytes]]  # media type and bytes
    blobs: dict[Digest, bytes]


def marker_in(repository: str) -> str | None:
    """Return the marker of a repository of this kind; None for any other."""
    if not repository.startswith(FOLDER):
        return None
    found = _REPOSITORY.fullmatch(repository)
    return None if found is None else found[1]


def marker_reference(upstream: str, marker: str) -> str:
    """Return the image's name, for a client to pull."""
    return f"{upstream}/{FOLDER}{marker}:{TAG}"


@lru_cache(16)
def marker_image(marker: str) -> MarkerImage:
    """Return the image of a marker: one small layer, an image for each platform, an index."""
    layer = _layer(marker)
    blobs, manifests, children = {Digest.of(layer): layer}, {}, []
    for architecture, variant in PLATFORMS:
        platform = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
        config = _json(
            {
                **platform,
                "created": "1970-01-01T00:00:00Z",
                "config": {"Labels": {"registry-mirror.doctor": marker}},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
                "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "registry-mirror doctor"}],
            }
        )
        blobs[Digest.of(config)] = config
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
                "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
            }
        )
        manifests[Digest.of(manifest)] = (OCI_MANIFEST, manifest)
        children.append({**_descriptor(OCI_MANIFEST, manifest), "platform": platform})
    index = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    manifests[Digest.of(index)] = (OCI_INDEX, index)
    return MarkerImage(Digest.of(index), manifests, blobs)


def _layer(marker: str) -> bytes:
    """Return an uncompressed tar with one file: how well it compresses depends on the library."""
    import tarfile  # 4 ms of each start, for what few mirrors are ever asked

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("registry-mirror-doctor")
        data = f"{marker}\n".encode()
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}
