"""Images made of Debian's own files and pushed by plain HTTP, with their digests for comparison."""

import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from mirror.oci.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

Compress = Callable[[bytes], bytes]


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def zstandarded(data: bytes) -> bytes:
    return zstandard.compress(data, 3)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: dict[str, bytes]) -> bytes:
    """Return a layer of these files, executable, the same in each run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@dataclass(frozen=True)
class Image:
    """Pushed image. `blobs` are the config and the layers, each digest once."""

    name: str
    tag: str
    digest: str
    blobs: tuple[str, ...]
    diff_ids: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.tag}"


@dataclass
class Pusher:
    """Client that pushes to a registry without a password."""

    url: str
    _pushed: set[tuple[str, str]] = field(default_factory=set)

    def blob(self, repository: str, data: bytes) -> str:
        """Push a blob and return its digest."""
        digest = digest_of(data)
        if (repository, digest) not in self._pushed:
            self._upload(repository, digest, data, len(data))
            self._pushed.add((repository, digest))
        return digest

    def file(self, repository: str, path: Path) -> tuple[str, int]:
        """Push a file without loading it into memory; return digest and size."""
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            file.seek(0)
            self._upload(repository, digest, file, path.stat().st_size)
        return digest, path.stat().st_size

    def manifest(self, repository: str, reference: str, document: dict[str, Any]) -> str:
        data = json.dumps(document).encode()
        self._send(
            "PUT", f"{self.url}/v2/{repository}/manifests/{reference}", data, document["mediaType"], len(data)
        )
        return digest_of(data)

    def _upload(self, repository: str, digest: str, data: object, size: int) -> None:
        started = self._send("POST", f"{self.url}/v2/{repository}/blobs/uploads/", b"", "", 0)
        location = started.headers["Location"]
        separator = "&" if "?" in location else "?"
        self._send("PUT", f"{location}{separator}digest={digest}", data, "application/octet-stream", size)

    def _send(self, method: str, url: str, data: Any, media_type: str, size: int) -> Any:
        headers = {"Content-Length": str(size), "Content-Type": media_type}
        return urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method))


def push_image(
    to: Pusher, reference: str, layers: Sequence[bytes], compress: Compress = gzipped, docker: bool = True
) -> Image:
    """Push an image of these layers (uncompressed tars), as Docker schema 2 or as OCI."""
    name, _, tag = reference.partition(":")
    suffix = "+zstd" if compress is zstandarded else "+gzip"
    diff_ids = [digest_of(layer) for layer in layers]
    config = _config(reference, diff_ids)
    descriptors = [
        _descriptor(to, name, compress(layer), DOCKER_LAYER if docker else OCI_LAYER + suffix)
        for layer in layers
    ]
    return _finish(to, name, tag, config, descriptors, docker, diff_ids)


def push_big(to: Pusher, reference: str, layer: Path) -> Image:
    """Push an OCI image of one uncompressed layer, a file that is too large for memory."""
    name, _, tag = reference.partition(":")
    digest, size = to.file(name, layer)
    descriptor = {"mediaType": OCI_LAYER, "size": size, "digest": digest}
    return _finish(to, name, tag, _config(reference, [digest]), [descriptor], False, [digest])


def push_index(to: Pusher, reference: str, images: dict[str, Image]) -> Image:
    """Push a multi-platform index; `images` by architecture."""
    name, _, tag = reference.partition(":")
    entries = [
        {
            "mediaType": DOCKER_MANIFEST,
            "digest": image.digest,
            "size": manifest_size(to, name, image.digest),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, image in images.items()
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    digest = to.manifest(name, tag, document)
    return Image(name, tag, digest, tuple(blob for image in images.values() for blob in image.blobs))


def push_chart(to: Pusher, reference: str, chart: bytes) -> Image:
    """Push a Helm chart, with the layout of `helm push`."""
    name, _, tag = reference.partition(":")
    config = json.dumps({"name": "chart", "version": "1.0.0", "apiVersion": "v2"}).encode()
    layer = _descriptor(to, name, gzipped(chart), "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(to, name, config, "application/vnd.cncf.helm.config.v1+json"),
        "layers": [layer],
    }
    blobs = (document["config"]["digest"], layer["digest"])  # type: ignore[index]
    return Image(name, tag, to.manifest(name, tag, document), blobs)


def _finish(
    to: Pusher,
    name: str,
    tag: str,
    config: bytes,
    layers: list[dict[str, Any]],
    docker: bool,
    diff_ids: list[str],
) -> Image:
    described = _descriptor(to, name, config, DOCKER_CONFIG if docker else OCI_CONFIG)
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": described,
        "layers": layers,
    }
    blobs = dict.fromkeys([described["digest"], *(each["digest"] for each in layers)])
    return Image(name, tag, to.manifest(name, tag, document), tuple(blobs), tuple(diff_ids))


def _config(reference: str, diff_ids: list[str]) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/busybox", "echo", "hello"], "Labels": {"reference": reference}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(document).encode()


def _descriptor(to: Pusher, name: str, data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(data), "digest": to.blob(name, data)}


def manifest_size(to: Pusher, name: str, digest: str) -> int:
    """Return the bytes of a Docker manifest that was pushed."""
    request = urllib.request.Request(
        f"{to.url}/v2/{name}/manifests/{digest}", headers={"Accept": DOCKER_MANIFEST}, method="HEAD"
    )
    with urllib.request.urlopen(request) as response:
        return int(response.headers["Content-Length"])
