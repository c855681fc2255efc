"""Copies between repositories by the requests that clients make."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mirror.config.endpoints import UpstreamSettings
from mirror.hosted.copying.copier import Copier
from mirror.hosted.copying.folder_ends import FolderSource
from mirror.hosted.copying.registry_ends import RegistrySource, RegistryTarget
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.upstream.pushing.push_client import PushClient
from mirror.upstream.registry_client import RegistryClient
from tests.contract.hosting import hosting
from tests.hosting import APP, descriptor, hosted_of, manifest_of, push_blob, push_image
from tests.running import Running, serving


@asynccontextmanager
async def clients(mirror: Running) -> AsyncIterator[tuple[RegistryClient, PushClient]]:
    settings = UpstreamSettings.model_validate({"name": "other.lan", "url": f"http://{mirror.address}"})
    reader, writer = RegistryClient(settings, Metrics()), PushClient(settings, Metrics())
    try:
        yield reader, writer
    finally:
        await reader.close()
        await writer.close()


async def test_copy_over_http_mounts_and_keeps_referrers(tmp_path: Path) -> None:
    """Two copies: blobs are sent to the first repository, and mounted in the second one."""
    async with serving(await hosting(tmp_path)) as mirror, clients(mirror) as (reader, writer):
        registry = hosted_of(mirror)
        root = await push_image(registry, APP, "1", [b"layer", b"x" * 300_000])
        subject = descriptor(root, 1, OCI_MANIFEST)
        await push_blob(registry, APP, b"signature")
        signed = manifest_of([b"signature"], subject=subject)
        await registry.put_manifest(APP, Digest.of(signed), OCI_MANIFEST, signed)
        source = RegistrySource(reader, "office/app")
        mounts: dict[Digest, str] = {}
        target = RegistryTarget(writer, "office/new", mounts)
        found = await Copier(source, target, referrers=True).copy(root, [Tag("2")])
        assert (found.manifests, found.mounted) == (2, 0)
        further = RegistryTarget(writer, "office/third", mounts)
        found = await Copier(source, further, referrers=True).copy(root, [Tag("2")])
        assert (found.sent, found.mounted, found.size) == (0, 4, 0)
        assert await source.referrers(root) == [Digest.of(signed)]
        assert await RegistrySource(reader, "office/third").referrers(root) == [Digest.of(signed)]
        folder = FolderSource(mirror.service.folder, Repository("office", "third"))
        assert await folder.tagged(Tag("2")) == root
        assert await folder.referrers(root) == [Digest.of(signed)]
        assert json.loads((await reader.tags("office/new", "")).data)["tags"] == ["2"]
