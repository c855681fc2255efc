"""Images and charts of the matrix: each client in each way has its own, which no other pull has cached."""

import gzip
import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST
from tests.e2e.images import Pusher, manifest_size, push_chart, push_image, tar_of

# Bytes of a layer: few, because there are hundreds of pulls; or enough for a part to be sent before the rest.
SMALL, LARGE = 50_000, 9 * 512 * 1024


@dataclass(frozen=True)
class Content:
    """Pushed image for two platforms, or a chart. `needed`: the digests of which a client must have each.

    `manifests` of these are manifests, all others are blobs; `optional` are the blobs of another platform.
    """

    name: str
    tag: str
    digest: str
    needed: frozenset[str]
    manifests: frozenset[str]
    optional: frozenset[str]
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]

    @property
    def blobs(self) -> frozenset[str]:
        """Needed digests that are no manifests."""
        return self.needed - self.manifests


def push_list(to: Pusher, name: str, seed: str, size: int = SMALL) -> Content:
    """Push `name:1`, Docker's list of an image for two platforms, each of one layer of noise."""
    images = {
        architecture: push_image(
            to,
            f"{name}:{architecture}",
            [_noise(f"{seed} {architecture}", size if wanted else 1000)],
            _stored,
        )
        for architecture, wanted in (("amd64", True), ("arm64", False))
    }
    entries = [
        {
            "mediaType": DOCKER_MANIFEST,
            "digest": image.digest,
            "size": manifest_size(to, name, image.digest),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, image in images.items()
    ]
    digest = to.manifest(name, "1", {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries})
    wanted, other = images["amd64"], images["arm64"]
    return Content(
        name,
        "1",
        digest,
        frozenset({digest, wanted.digest, *wanted.blobs}),
        frozenset({digest, wanted.digest}),
        frozenset(other.blobs),
        wanted.blobs[1:],
        wanted.diff_ids,
    )


def push_helm_chart(to: Pusher, name: str, seed: str, size: int = SMALL) -> Content:
    """Push `name:1.0.0`, a Helm chart that Helm itself can read."""
    chart = f"apiVersion: v2\nname: {name.rpartition('/')[2]}\nversion: 1.0.0\n".encode()
    noise = random.Random(seed).randbytes(size)
    image = push_chart(to, f"{name}:1.0.0", tar_of({"chart/Chart.yaml": chart, "chart/noise": noise}))
    return Content(
        name,
        "1.0.0",
        image.digest,
        frozenset(image.blobs),
        frozenset(),
        frozenset(),
        image.blobs[1:],
        (),
    )


def _stored(data: bytes) -> bytes:
    return gzip.compress(data, 0, mtime=0)


def _noise(seed: str, size: int) -> bytes:
    return tar_of({"noise": random.Random(seed).randbytes(size)})


def not_whole(folder: Path, digests: Iterable[str]) -> str:
    """Return a complaint about the first of these digests that no file has, "" for none.

    The name of a file ends in the hexadecimal part of its digest: in an OCI layout, in a folder that skopeo
    wrote, and among the files of a script.
    """
    files = {path.name.rpartition(":")[2]: path for path in folder.rglob("*") if path.is_file()}
    manifest = folder / "manifest.json"
    if manifest.is_file():  # skopeo's `dir:` names the manifest so
        files[hashlib.sha256(manifest.read_bytes()).hexdigest()] = manifest
    for digest in sorted(digests):
        path = files.get(digest.removeprefix("sha256:"))
        path = path or files.get(f"{digest.removeprefix('sha256:')}.manifest.json")
        if path is None:
            return f"{digest} is missing among {sorted(files)}"
        if f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" != digest:
            return f"{digest} is wrong"
    return ""
