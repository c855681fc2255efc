"""Repositories of the folder as ends of a copy: what is refused, and what is left behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.hosted.copying.copier import Copier
from mirror.hosted.copying.folder_ends import FolderSource, FolderTarget
from mirror.hosted.copying.places import CopiedManifest, CopyFailed
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from tests.hosting import APP, OTHER, hosted_of, manifest_of, office, push_image


async def test_copy_within_the_folder_links(tmp_path: Path) -> None:
    async with office(tmp_path / "cache") as mirror:
        registry = hosted_of(mirror)
        root = await push_image(registry, APP, "1")
        folder, settings = registry.store.folder, registry.settings(OTHER)
        target = await asyncio.to_thread(FolderTarget, folder, OTHER, settings)
        found = await Copier(FolderSource(folder, APP), target).copy(root, [Tag("2")])
        assert (found.sent, found.mounted, found.manifests) == (0, 2, 1)
        entry = await registry.store.tag(OTHER, Tag("2"))
        assert entry is not None
        assert entry.digest == str(root)
        assert (await Copier(FolderSource(folder, APP), target).copy(root, [Tag("2")])).nothing


async def test_source_gives_only_what_its_repository_has(tmp_path: Path) -> None:
    async with office(tmp_path / "cache") as mirror:
        registry = hosted_of(mirror)
        root = await push_image(registry, APP, "1")
        source = FolderSource(registry.store.folder, OTHER)
        assert await source.manifest(root) is None
        assert await source.tagged(Tag("1")) is None
        with pytest.raises(CopyFailed, match="is not here"):
            await anext(aiter(source.blob(Digest.of(b"layer"), 5)))


async def test_target_refuses_without_a_trace(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"12345"
        raise CopyFailed("broken")

    async with office(tmp_path / "cache", quota="50B") as mirror:
        registry = hosted_of(mirror)
        folder, settings = registry.store.folder, registry.settings(APP)
        target = await asyncio.to_thread(FolderTarget, folder, APP, settings)
        with pytest.raises(CopyFailed, match="quota of office"):
            await target.put_blob(Digest.of(b"x" * 60), 60, body)
        with pytest.raises(CopyFailed, match="broken"):
            await target.put_blob(Digest.of(b"1234567"), 7, body)
        with pytest.raises(CopyFailed, match="repository"):
            await target.put_manifest(Tag("1"), CopiedManifest(manifest_of(), OCI_MANIFEST))
        with pytest.raises(CopyFailed, match="not JSON"):
            await target.put_manifest(Tag("1"), CopiedManifest(b"no", OCI_MANIFEST))
        uploads = await asyncio.to_thread(lambda: list((folder.path / "uploads").iterdir()))
        assert not uploads
        assert await target.digest_of(Tag("1")) is None
