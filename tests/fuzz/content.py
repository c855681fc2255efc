"""Content of the fake upstreams: an image in every repository, computed from the repository's name.

Nothing is stored: origin, generator and oracle compute the same bytes, whichever case runs, in any order.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache

from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST

# The upstream that always answers rightly, and the pattern of those that never do.
GOOD = "docker.io"
ODD = "odd{:03d}.test"

# Repositories of GOOD that many cases ask for, so that most requests are hits. Those with a number that
# LARGE_EVERY divides have a layer above the holdback of 4 MiB.
WARM = 48
LARGE_EVERY = 24
LARGE_BYTES = 4 * 1024 * 1024 + 70_000


@dataclass(frozen=True)
class Image:
    """One repository: a manifest, an index of it under another tag, a config and layers."""

    repository: str
    manifest: str  # digest; the tag is `latest`
    index: str  # digest; the tag is `index`
    manifests: dict[str, tuple[bytes, str]]  # digest -> content, media type
    blobs: dict[str, bytes]  # digest -> content; the config first

    def tagged(self, tag: str) -> str | None:
        """Return the digest of a tag, None for one that is not there."""
        return {"latest": self.manifest, "index": self.index}.get(tag)

    def referrers(self) -> list[dict[str, object]]:
        data, kind = self.manifests[self.index]
        size = len(data)
        return [{"mediaType": kind, "digest": self.index, "size": size, "artifactType": "text/x-fuzz"}]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def noise(name: str, size: int) -> bytes:
    """Return bytes that depend on the name alone."""
    return hashlib.shake_128(name.encode()).digest(size)


@lru_cache(maxsize=4096)
def image_of(upstream: str, repository: str) -> Image:
    """Return the image of a repository of an upstream."""
    name = f"{upstream}/{repository}"
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Image": name}}).encode()
    layers = [noise(f"{name}#{number}", size) for number, size in enumerate(_sizes(repository))]
    blobs = {digest_of(each): each for each in (config, *layers)}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", each) for each in layers],
        }
    ).encode()
    platform = {"platform": {"os": "linux", "architecture": "amd64"}}
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{**_descriptor(OCI_MANIFEST, manifest), **platform}],
        }
    ).encode()
    manifests = {digest_of(manifest): (manifest, OCI_MANIFEST), digest_of(index): (index, OCI_INDEX)}
    return Image(repository, digest_of(manifest), digest_of(index), manifests, blobs)


def _sizes(repository: str) -> list[int]:
    kind, _, number = repository.rpartition("/app")
    if kind == "library" and number.isdigit() and int(number) % LARGE_EVERY == 0:
        return [700, LARGE_BYTES]
    first = hashlib.sha256(repository.encode()).digest()[0]
    return [first * 13, 0 if first == 0 else 1, 90_000] if first < 16 else [first * 13]


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
