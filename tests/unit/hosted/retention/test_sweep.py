"""Sweeps: expired tags go, with what only they lead to; everything else stays."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.registry import HostedRegistry
from mirror.hosted.retention.sweep import RetentionSweep, Swept
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Tag
from tests.hosting import (
    APP,
    CONFIG,
    OTHER,
    descriptor,
    hosted_of,
    index_of,
    manifest_of,
    office,
    push_blob,
    push_image,
)

HOUR = 3600.0


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[HostedRegistry]:
    async with office(tmp_path / "cache") as running:
        yield hosted_of(running)


async def swept(registry: HostedRegistry, hours: float = 5, *, dry_run: bool = False, **rule: Any) -> Swept:
    """Sweep APP some hours from now, by one rule."""
    settings = HostedSettings.model_validate(
        {"name": "office", "immutable_tags": ["v*"], "retention": [{"keep_last": 1, **rule}]}
    )
    later = time.time() + hours * HOUR
    sweep = RetentionSweep(registry.store.folder, settings, lambda: later)
    assert APP in await registry.store.read(lambda: list(sweep.repositories()))
    return await registry.store.read(lambda: sweep.sweep(APP, dry_run=dry_run))


async def has(registry: HostedRegistry, reference: Tag | Digest) -> bool:
    try:
        await registry.content.get_manifest(APP, reference)
    except RegistryError:
        return False
    return True


async def tags(registry: HostedRegistry) -> list[str]:
    return list(json.loads((await registry.content.tags(APP, "")).data)["tags"])


async def test_expired_tag_goes_with_its_manifest(registry: HostedRegistry) -> None:
    old = await push_image(registry, APP, "1", [b"one"])
    new = await push_image(registry, APP, "2", [b"two"])
    await push_image(registry, OTHER, "1", [b"one"])
    for dry_run in (True, False):
        found = await swept(registry, dry_run=dry_run)
        assert (list(found.tags), list(found.manifests)) == ([("1", old)], [old])
        assert await tags(registry) == (["1", "2"] if dry_run else ["2"])
    assert not await has(registry, old)
    assert await has(registry, new)
    assert (await registry.content.get_manifest(OTHER, Tag("1"))).digest == old
    assert not (await swept(registry)).tags


async def test_manifest_that_something_else_leads_to_stays(registry: HostedRegistry) -> None:
    """Another tag, or an index that was pushed by its digest."""
    old = await push_image(registry, APP, "1", [b"one"])
    await registry.put_manifest(APP, Tag("v1"), OCI_MANIFEST, manifest_of([b"one"]))
    child = await push_image(registry, APP, "3", [b"three"])
    index = index_of([manifest_of([b"three"])])
    await registry.put_manifest(APP, Digest.of(index), OCI_INDEX, index)
    await push_image(registry, APP, "4", [b"four"])
    found = await swept(registry, tags=["1", "3", "4"])
    assert {name for name, _ in found.tags} == {"1", "3"}
    assert not found.manifests
    assert await has(registry, old)
    assert await has(registry, child)


async def test_index_goes_with_its_platforms_and_its_referrers(registry: HostedRegistry) -> None:
    platform = await push_image(registry, APP, "tmp", [b"amd64"])
    index = index_of([manifest_of([b"amd64"])])
    put = await registry.put_manifest(APP, Tag("1"), OCI_INDEX, index)
    await registry.delete_tag(APP, Tag("tmp"))
    await push_blob(registry, APP, CONFIG)
    signature = manifest_of(subject=descriptor(put.digest, len(index), OCI_INDEX))
    refers = await registry.put_manifest(APP, Digest.of(signature), OCI_MANIFEST, signature)
    attached = await push_image(registry, APP, f"sha256-{put.digest.encoded}.sig", [b"sig"])
    await push_image(registry, APP, "2", [b"two"])
    dry = await swept(registry, dry_run=True)
    found = await swept(registry)
    assert set(found.manifests) == set(dry.manifests) == {put.digest, platform, refers.digest, attached}
    assert await tags(registry) == ["2"]


async def test_attached_tag_of_an_image_that_stays_stays(registry: HostedRegistry) -> None:
    await push_image(registry, APP, "1", [b"one"])
    kept = await push_image(registry, APP, "2", [b"two"])
    name = f"sha256-{kept.encoded}.sig"
    await push_image(registry, APP, name, [b"sig"])
    assert [each for each, _ in (await swept(registry)).tags] == ["1"]
    assert await tags(registry) == ["2", name]


async def test_pull_keeps_an_image(registry: HostedRegistry) -> None:
    await push_image(registry, APP, "1", [b"one"])
    used = await push_image(registry, APP, "2", [b"two"])
    moment = time.time() + 4 * HOUR
    await registry.store.read(registry.store.folder.blobs.table.touch, {used: moment})
    found = await swept(registry, keep_last=0, keep_pulled="2h")
    assert [name for name, _ in found.tags] == ["1"]


async def test_push_after_the_verdict_keeps_its_tag(registry: HostedRegistry) -> None:
    """A tag goes only in the state in which it was judged."""
    old = await push_image(registry, APP, "1", [b"one"])
    index = registry.store.index
    entries = dict(await registry.store.read(index.queries.tag_entries, APP, "", 10))
    await push_image(registry, APP, "1", [b"new"])
    assert await registry.store.read(index.expire_tags, APP, entries) == []
    assert await tags(registry) == ["1"]
    assert await has(registry, old)


async def test_manifest_that_was_named_in_the_last_hour_stays(registry: HostedRegistry) -> None:
    """A client pushes an index of the manifest just now, perhaps, though its tag is older."""
    await push_image(registry, APP, "1", [b"one"])
    await push_image(registry, APP, "2", [b"two"])
    assert not (await swept(registry, hours=0.9)).tags
    index = registry.store.index
    later = time.time() - HOUR
    doomed = [(await registry.content.get_manifest(APP, Tag("1"))).digest]
    assert await registry.store.read(index.drop_unnamed, APP, doomed, later) == []
