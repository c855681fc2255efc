"""Gauges that are sampled for a scrape."""

import asyncio
from pathlib import Path

import pytest

from mirror.service.service import Service
from mirror.store.errors import StoreError
from tests.fakes.registry import FakeRegistry
from tests.running import configured, mirror_of
from tests.wire import get


async def test_statistics_sample_the_folder(tmp_path: Path) -> None:
    """The number of blobs is that of the moment."""
    async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
        digest = hub.add_blob("library/x", b"x" * 5000)
        assert (await get(mirror.address, f"/v2/library/x/blobs/{digest}")).status == 200
        while not await asyncio.to_thread(mirror.service.folder.blobs.has, digest):
            await get(mirror.address, "/v2/")
        families = {each.name: each for each in await mirror.service.statistics.families()}
        assert list(families["registry_mirror_cache_entries"].samples.values()) == [1.0]


async def test_statistics_of_a_bad_disk_have_the_other_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metrics tell about the trouble, so they may not fail with it."""
    service = await Service.open(configured(tmp_path, {"docker.io": "http://127.0.0.1:9"}))

    async def failing() -> tuple[int, int]:
        raise StoreError("disk")

    monkeypatch.setattr(service._store.upkeep, "stats", failing)
    body, _ = await service.statistics.exposition()
    assert b"registry_mirror_tasks" in body
    await service.close()
