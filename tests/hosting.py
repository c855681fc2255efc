"""A mirror with the hosted registry `office`, and pushes to it past HTTP."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mirror.hosted.registry import HostedRegistry
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.service.service import Service
from mirror.store.blobs.diskcache_disk import VerifiedFile
from tests.running import Running, configured, serving

APP = Repository("office", "app")
OTHER = Repository("office", "team/other")
CONFIG = b'{"architecture":"amd64","os":"linux"}'


def hosted_of(running: Running | Service) -> HostedRegistry:
    """The hosted registries of a running mirror."""
    service = running.service if isinstance(running, Running) else running
    assert service.hosted is not None
    return service.hosted


@asynccontextmanager
async def office(cache: Path, url: str = "http://127.0.0.1:9", **options: Any) -> AsyncIterator[Running]:
    """Serve a mirror of docker.io at `url`, with the hosted registry `office`."""
    sections = options.pop("sections", {})
    hosted = ({"name": "office", "hosts": ("office.test",), **options},)
    async with serving(configured(cache, {"docker.io": url}, hosted=hosted, **sections)) as running:
        yield running


async def push_blob(
    registry: HostedRegistry, repository: Repository, data: bytes, algorithm: str = "sha256"
) -> Digest:
    """Push a blob as a finished upload does."""
    digest = Digest.of(data, algorithm)
    path = registry.store.folder.partials / f"upload-{digest.encoded}"
    await registry.store.read(path.write_bytes, data)
    await registry.commit_upload(repository, VerifiedFile(digest, path, len(data)), digest)
    return digest


def descriptor(digest: Digest, size: int, media_type: str, **fields: Any) -> dict[str, Any]:
    """A descriptor as a manifest has it."""
    return {"mediaType": media_type, "digest": str(digest), "size": size, **fields}


def manifest_of(layers: Iterable[bytes] = (), config: bytes = CONFIG, **fields: Any) -> bytes:
    """An OCI manifest of these contents."""
    layer = "application/vnd.oci.image.layer.v1.tar"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(Digest.of(config), len(config), "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(Digest.of(each), len(each), layer) for each in layers],
        **fields,
    }
    return json.dumps(document).encode()


def index_of(manifests: Iterable[bytes], **fields: Any) -> bytes:
    """An OCI index of these manifests."""
    named = [descriptor(Digest.of(each), len(each), OCI_MANIFEST) for each in manifests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": named, **fields}
    return json.dumps(document).encode()


async def push_image(
    registry: HostedRegistry,
    repository: Repository,
    tag: str,
    layers: Iterable[bytes] = (b"layer",),
    **fields: Any,
) -> Digest:
    """Push an image with its blobs; return the digest of its manifest."""
    layers = list(layers)
    for each in (CONFIG, *layers):
        await push_blob(registry, repository, each)
    data = manifest_of(layers, **fields)
    return (await registry.put_manifest(repository, Tag(tag), OCI_MANIFEST, data)).digest
