"""The composition root: opening, housekeeping, closing."""

import asyncio
import gc
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.oci.digest import Digest
from mirror.service import service
from mirror.service.service import Service
from mirror.store.blobs.entries import EvictedBlob, EvictionReason
from mirror.store.blobs.quota import Quota
from mirror.store.errors import StoreError
from tests.fakes.registry import FakeRegistry
from tests.running import configured, mirror_of, serving
from tests.wire import get


async def test_unusable_cache_folder_stops_the_start(tmp_path: Path) -> None:
    """The error names the folder and the reason."""
    await asyncio.to_thread((tmp_path / "file").write_text, "not a folder")
    with pytest.raises(StoreError, match=r"cannot use the cache folder .*/file"):
        await Service.open(configured(tmp_path / "file", {"docker.io": "http://127.0.0.1:9"}))


async def test_cache_folder_is_private(tmp_path: Path) -> None:
    """The folder's mode is 0700, even if the folder existed with more rights."""
    cache = tmp_path / "cache"
    await asyncio.to_thread(cache.mkdir, 0o755)
    opened = await Service.open(configured(cache, {"docker.io": "http://127.0.0.1:9"}))
    await opened.close()
    assert (await asyncio.to_thread(cache.stat)).st_mode & 0o777 == 0o700


async def test_housekeeping_writes_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Housekeeping writes last-use times, and goes on after a disk failure."""
    monkeypatch.setattr(service, "HOUSEKEEPING_SECONDS", 0.001)
    flushed = asyncio.Event()
    failures = iter([StoreError("disk"), None])

    async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
        store = mirror.service._store
        flush = store._last_use.flush

        async def failing_once() -> None:
            if (failure := next(failures, None)) is not None:
                raise failure
            await flush()
            if not store._last_use.used:
                flushed.set()

        monkeypatch.setattr(store._last_use, "flush", failing_once)
        digest = hub.add_blob("library/x", b"x")
        await get(mirror.address, f"/v2/library/x/blobs/{digest}")
        await flushed.wait()


async def test_close_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """The number of descriptors is the same after each opening and closing."""

    async def once() -> int:
        async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
            image = hub.add_image("library/x", "t", [b"x"])
            await get(mirror.address, "/v2/library/x/manifests/t")
            await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")
            await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")
        return len(await asyncio.to_thread(os.listdir, "/proc/self/fd"))

    await asyncio.to_thread(gc.collect)  # garbage of other tests must not disappear between the counts
    first = await once()
    assert [await once() for _ in range(3)] == [first] * 3


@pytest.mark.usefixtures("debug_log")
async def test_eviction_is_reported_with_its_reason(tmp_path: Path) -> None:
    """The log and the metrics have number, bytes and reason; the debug log has each blob."""
    used = [EvictedBlob(Digest.of(bytes([number])), 1, EvictionReason.USED) for number in range(3)]
    evicted = [
        EvictedBlob(Digest.of(b"a"), 5),
        EvictedBlob(Digest.of(b"b"), 6),
        *used,
        EvictedBlob(Digest.of(b"c"), 7, EvictionReason.AGE),
    ]
    async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
        with capture_logs() as logs:
            mirror.service._store.room.on_evicted(evicted)
        for reason, count, size in (("room", 2, 11), ("used", 3, 3), ("age", 1, 7)):
            name = f'{{reason="{reason}"}}'
            assert await mirror.metric(f"registry_mirror_evicted_blobs_total{name}") == count
            assert await mirror.metric(f"registry_mirror_evicted_bytes_total{name}") == size
            lines = [line for line in logs if line["log_level"] == "info" and line["blobs"] == count]
            assert [line["bytes"] for line in lines] == [size]
    assert [line["digest"] for line in logs if line["event"] == "evicted"] == [
        str(each.digest) for each in evicted
    ]


async def test_shortage_of_room_that_begins_while_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Housekeeping finds the shortage, and its end, and logs each once."""
    monkeypatch.setattr(service, "HOUSEKEEPING_SECONDS", 0.001)
    with capture_logs() as lines:
        async with serving(configured(tmp_path, {"docker.io": "http://127.0.0.1:9"})) as mirror:
            assert mirror.service.state.troubles() == []
            folder = mirror.service._store.folder
            for min_free in (1 << 62, 0):
                monkeypatch.setattr(folder.evictor, "quota", Quota(min_free=min_free))
                while bool(mirror.service.state.troubles()) is not bool(min_free):  # noqa: ASYNC110  # no event
                    await asyncio.sleep(0.001)
    events = [line["event"] for line in lines if line["log_level"] in ("warning", "info")]
    assert len([each for each in events if "nothing will be kept" in each]) == 1
    assert events.count("there is room for the cache again") == 1


async def test_service_beside_a_mirror_leaves_its_pins(tmp_path: Path) -> None:
    """A command that was started with another configuration does not replace the mirror's pins."""
    config = configured(tmp_path, {"docker.io": "http://127.0.0.1:9"})
    cache = config.cache.model_copy(update={"pins": ("alpine:3.20",)})
    mirror = await Service.open(config.model_copy(update={"cache": cache}))
    beside = await Service.open_beside(config)
    pins = await asyncio.to_thread(mirror.folder.pins.all)
    await beside.close()
    await mirror.close()
    assert [str(each.pin) for each in pins] == ["docker.io/library/alpine:3.20"]
