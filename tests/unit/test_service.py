"""The composition root: opens, keeps house, closes."""

import asyncio
import gc
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror import service
from mirror.oci.digest import Digest
from mirror.service import Service
from mirror.store.blobs.blobs import EvictedBlob, EvictionReason
from mirror.store.errors import StoreError
from tests.fakes.registry import FakeRegistry
from tests.running import configured, mirror_of
from tests.wire import get


async def test_a_cache_folder_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    """The error names the folder and the reason."""
    await asyncio.to_thread((tmp_path / "file").write_text, "not a folder")
    with pytest.raises(StoreError, match=r"cannot use the cache folder .*/file"):
        await Service.open(configured(tmp_path / "file", {"docker.io": "http://127.0.0.1:9"}))


async def test_the_cache_folder_is_private(tmp_path: Path) -> None:
    """0700, though it may have existed with more."""
    cache = tmp_path / "cache"
    await asyncio.to_thread(cache.mkdir, 0o755)
    opened = await Service.open(configured(cache, {"docker.io": "http://127.0.0.1:9"}))
    await opened.close()
    assert (await asyncio.to_thread(cache.stat)).st_mode & 0o777 == 0o700


async def test_last_use_is_written_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Housekeeping writes what was used, and a failing disk does not end it."""
    monkeypatch.setattr(service, "HOUSEKEEPING_SECONDS", 0.001)
    flushed = asyncio.Event()
    failures = iter([StoreError("disk"), None])

    async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
        store = mirror.service._store
        flush = store.flush_last_use

        async def counted() -> None:
            if (failure := next(failures, None)) is not None:
                raise failure
            await flush()
            if not store._used:
                flushed.set()

        monkeypatch.setattr(store, "flush_last_use", counted)
        digest = hub.add_blob("library/x", b"x")
        await get(mirror.address, f"/v2/library/x/blobs/{digest}")
        await flushed.wait()


async def test_opening_and_closing_leaves_nothing_open(tmp_path: Path) -> None:
    """Descriptors and threads are as before, again and again."""

    async def once() -> int:
        async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
            image = hub.add_image("library/x", "t", [b"x"])
            await get(mirror.address, "/v2/library/x/manifests/t")
            await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")
            await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")
        return len(await asyncio.to_thread(os.listdir, "/proc/self/fd"))

    await asyncio.to_thread(gc.collect)  # what other tests left must not disappear while we count
    first = await once()
    assert [await once() for _ in range(3)] == [first] * 3


async def test_what_was_evicted_is_told_with_the_reason(tmp_path: Path) -> None:
    """How much, and why, in the log and as a metric; and each blob for who wants to know."""
    used = [EvictedBlob(Digest.of(bytes([number])), 1, EvictionReason.USED) for number in range(3)]
    gone = [
        EvictedBlob(Digest.of(b"a"), 5),
        EvictedBlob(Digest.of(b"b"), 6),
        *used,
        EvictedBlob(Digest.of(b"c"), 7, EvictionReason.AGE),
    ]
    async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
        with capture_logs() as logs:
            mirror.service._store.on_evicted(gone)
        for reason, count, size in (("room", 2, 11), ("used", 3, 3), ("age", 1, 7)):
            name = f'{{reason="{reason}"}}'
            assert await mirror.metric(f"registry_mirror_evicted_blobs_total{name}") == count
            assert await mirror.metric(f"registry_mirror_evicted_bytes_total{name}") == size
            lines = [line for line in logs if line["log_level"] == "info" and line["blobs"] == count]
            assert [line["bytes"] for line in lines] == [size]
    assert [line["digest"] for line in logs if line["event"] == "evicted"] == [
        str(each.digest) for each in gone
    ]
