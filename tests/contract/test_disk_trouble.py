"""Invariant 12: whatever is wrong with the cache folder, no pull fails that the upstream could serve.

Through HTTP, with disks that are full, read-only, failing, removed or corrupt: real ones, small and mounted
for the test.
"""

import asyncio
import fcntl
import json
import os
import shutil
import sqlite3
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.store.memory_cache import MemoryCache
from mirror.store.partial.growing import GrowingFile
from tests.disks import MIB, fill_up, formatted, mount, tmpfs
from tests.fakes.content import FakeImage, sample
from tests.fakes.faults import Fault, Gate, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, mirror_of, serving
from tests.wire import Reply, Wire, get, head

BIG = sample(LARGE)


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 12 MiB."""
    with tmpfs(tmp_path / "disk", 12 * MIB) as disk:
        yield disk


async def pull(mirror: Running, image: FakeImage) -> None:
    """Pull a whole image, as clients do, and check every byte."""
    reply = await get(mirror.address, f"/v2/{image.repository}/manifests/{image.tag}")
    assert (reply.status, reply.body) == (200, image.manifest_data)
    reply = await get(mirror.address, f"/v2/{image.repository}/manifests/{image.manifest}")
    assert (reply.status, reply.body) == (200, image.manifest_data)
    for digest, data in zip(image.blobs, (image.config_data, *image.layers_data), strict=True):
        path = f"/v2/{image.repository}/blobs/{digest}"
        reply = await get(mirror.address, path)
        assert (reply.status, reply.complete, reply.body == data) == (200, True, True)
        assert (await head(mirror.address, path)).status == 200
        await mirror.landed(digest)


async def pull_unused(mirror: Running, image: FakeImage) -> None:
    """Pull an image whose blobs are the first to be evicted afterwards."""
    store = mirror.service._store
    await pull(mirror, image)
    await store.upkeep.flush_last_use()
    await store.executor.run(store.folder.blobs.table.touch, dict.fromkeys(image.blobs, 1.0))


def new_image(hub: FakeRegistry, tag: str) -> FakeImage:
    """Add an image with a small layer and a large one, which no other image has."""
    return hub.add_image("library/x", tag, [f"small {tag}".encode(), os.urandom(64) + BIG])


async def troubles(mirror: Running) -> set[str]:
    """Return the kinds of trouble in the metrics."""
    state = json.loads((await get(mirror.address, "/readyz")).body)
    return {each["kind"] for each in state["cache"]["trouble"]}


async def is_kept(hub: FakeRegistry, mirror: Running, tag: str) -> bool:
    """Pull an image twice, and return whether it was fetched once."""
    image = new_image(hub, tag)
    for _ in range(2):
        await pull(mirror, image)
    return hub.requests("GET", image.layers[1]) == hub.requests("GET", image.layers[0]) == 1


@pytest.mark.needs("unshare", root=True)
async def test_full_disk_passes_through_and_recovers(hub: FakeRegistry, small_disk: Path) -> None:
    """Another program fills the disk, and nothing may go: pulls go on, one line says what to do.

    Caching resumes.
    """
    async with mirror_of(hub, small_disk / "cache") as mirror:
        assert await is_kept(hub, mirror, "before")
        store = mirror.service._store
        await store.executor.run(store.folder.pinning.pin, Pin.parse("x:before"))
        await asyncio.to_thread(fill_up, small_disk / "others")
        with capture_logs() as lines:
            for tag in ("a", "b", "c"):
                await pull(mirror, new_image(hub, tag))
        assert await troubles(mirror) == {"full"}
        logged = [line for line in lines if "trouble with the cache folder" in line["event"]]
        assert len(logged) == 1
        assert "make room" in logged[0]["to_do"]
        assert not [line for line in lines if line["event"] == "task failed"]
        label = 'registry_mirror_cache_trouble{kind="full",what="writing"}'
        await get(mirror.address, "/metrics")
        assert await mirror.metric(label) == 1
        assert await mirror.metric("registry_mirror_passed_through_total") >= 3
        await asyncio.to_thread((small_disk / "others").unlink)
        await store.upkeep.recover()
        assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "after")
        assert await store.upkeep.check() == []


@pytest.mark.needs("unshare", root=True)
async def test_full_disk_in_the_middle_of_a_blob(hub: FakeRegistry, small_disk: Path) -> None:
    """Readers of the growing file get the rest from the upstream, and notice nothing."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        image = new_image(hub, "t")
        layer = image.layers[1]
        await get(mirror.address, f"/v2/library/x/manifests/{image.manifest}")
        gate = hub.hold(layer, after=LARGE // 2)
        asking = [
            asyncio.ensure_future(get(mirror.address, f"/v2/library/x/blobs/{layer}")) for _ in range(3)
        ]
        await gate.reached.wait()
        flight = mirror.service.cache._blobs._flights.get(layer)
        assert flight is not None
        await flight.wait_content()  # before that, the room is judged once more
        with capture_logs() as lines:
            await asyncio.to_thread(fill_up, small_disk / "others")
            gate.release()
            for reply in await asyncio.gather(*asking):
                assert (reply.status, reply.complete, reply.body == image.layers_data[1]) == (200, True, True)
            await mirror.landed(layer)
        assert [line["log_level"] for line in lines if line["event"] == "fill failed"] == ["info"]
        assert await troubles(mirror) == {"full"}
        # And the broken fill does not fill the disk forever.
        await mirror.landed(layer)
        left = await asyncio.to_thread(os.listdir, small_disk / "cache" / "partial")
        assert [each for each in left if each.endswith(".data")] == []


@pytest.mark.needs("unshare", root=True)
async def test_full_disk_after_wrong_bytes(hub: FakeRegistry, small_disk: Path) -> None:
    """A right end behind a wrong beginning would be a complete wrong blob (invariant 4)."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        image = new_image(hub, "t")
        layer, data = image.layers[1], image.layers_data[1]
        await get(mirror.address, f"/v2/library/x/manifests/{image.manifest}")
        gate = Gate()
        hub.fault(Fault(data=flipped(data, 1000), hold=gate, after=LARGE // 2), layer, "GET")
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", f"/v2/library/x/blobs/{layer}")
            await wire.head()
            await wire.reader.readexactly(64 * 1024)
            await gate.reached.wait()
            await asyncio.to_thread(fill_up, small_disk / "others")
            gate.release()
            rest = await wire.reader.read(-1)
        assert 64 * 1024 + len(rest) < len(data)
        assert (await get(mirror.address, f"/v2/library/x/blobs/{layer}")).body == data


@pytest.mark.needs("unshare", root=True)
async def test_blob_larger_than_the_disk_is_passed_through(hub: FakeRegistry, small_disk: Path) -> None:
    """Everything else is kept: one large blob is no trouble with the disk, and evicts nothing."""
    data = os.urandom(14 * MIB)
    image, unused = hub.add_image("library/x", "t", [data]), hub.add_image("library/y", "t", [BIG])
    async with mirror_of(hub, small_disk / "cache") as mirror:
        await pull_unused(mirror, unused)
        await pull(mirror, image)
        assert await mirror.service._store.content.missing_blobs(unused.blobs) == []
        assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "other")


@pytest.mark.needs("unshare", root=True)
async def test_full_disk_evicts_nothing_for_a_blob_that_would_not_fit(
    hub: FakeRegistry, small_disk: Path
) -> None:
    """Another program takes the room of a running fill: all that could be evicted is less than it needs."""
    unused = hub.add_image("library/y", "t", [os.urandom(MIB)])
    async with mirror_of(hub, small_disk / "cache") as mirror:
        store = mirror.service._store
        await pull_unused(mirror, unused)
        digest = hub.add_blob("library/x", BIG)
        gate = hub.hold(digest, after=LARGE // 2)
        asking = asyncio.ensure_future(get(mirror.address, f"/v2/library/x/blobs/{digest}"))
        await gate.reached.wait()
        flight = mirror.service.cache._blobs._flights.get(digest)
        assert flight is not None
        growing = await flight.wait_content()
        assert isinstance(growing, GrowingFile)
        while growing.room_due.is_set():  # noqa: ASYNC110  # until room was made while there is some
            await asyncio.sleep(0.001)
        await asyncio.to_thread(fill_up, small_disk / "others")
        await store.executor.run(
            store.folder.evictor.evict, (), 0, digest
        )  # as the fill does when more has come
        gate.release()
        assert (await asking).body == BIG
        await mirror.landed(digest)
        assert await store.content.missing_blobs(unused.blobs) == []


@pytest.mark.needs("unshare", root=True)
async def test_full_disk_evicts_unused_blobs(hub: FakeRegistry, small_disk: Path) -> None:
    """A full disk is first of all a reason to evict."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        for tag in ("a", "b", "c", "d"):
            await pull_unused(mirror, image := new_image(hub, tag))
        assert await troubles(mirror) == set()
        assert hub.requests("GET", image.layers[1]) == 1
        await pull(mirror, image)
        assert hub.requests("GET", image.layers[1]) == 1


@pytest.mark.needs("unshare", root=True)
async def test_full_disk_evicts_without_a_free_byte(hub: FakeRegistry, small_disk: Path) -> None:
    """A fill is faster than the eviction that makes room for it, and has taken all that was free."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        store = mirror.service._store
        for tag in ("a", "b"):
            await pull_unused(mirror, new_image(hub, tag))
        locked = ExitStack()
        await asyncio.to_thread(locked.enter_context, store.folder.evictor.lock())
        pulling = asyncio.ensure_future(pull(mirror, image := new_image(hub, "c")))
        while (await asyncio.to_thread(shutil.disk_usage, small_disk)).free:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0)
        await asyncio.to_thread(locked.close)
        await pulling
        assert await troubles(mirror) == set()
        await pull(mirror, image)
        assert hub.requests("GET", image.layers[1]) == 1


@pytest.mark.needs("unshare", root=True)
async def test_read_only_disk_serves_its_content(hub: FakeRegistry, small_disk: Path) -> None:
    """Everything else is passed through."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        image = new_image(hub, "here")
        await pull(mirror, image)
        for part in (mirror.service._store.content, mirror.service._store.metadata):
            part._memory = MemoryCache(0)  # so that every read is from the disk
        # A mount with files open for writing cannot be remounted: so only below the databases.
        folders = [small_disk / "cache" / name for name in ("partial", "blobs/sha256")]
        for each in folders:
            await asyncio.to_thread(mount, "--bind", str(each), str(each))
            await asyncio.to_thread(mount, "-o", "remount,bind,ro", str(each))
        try:
            asked = hub.requests("GET", "/blobs/")
            await pull(mirror, image)
            assert hub.requests("GET", "/blobs/") == asked
            await pull(mirror, new_image(hub, "new"))
            assert await troubles(mirror) == {"read_only"}
            await mirror.service._store.upkeep.recover()
            assert await troubles(mirror) == {"read_only"}
        finally:
            for each in folders:
                await asyncio.to_thread(subprocess.run, ["umount", str(each)], check=True)
        await mirror.service._store.upkeep.recover()
        assert await is_kept(hub, mirror, "after")


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system whose disk can be made to fail: see `fail`."""
    with formatted(tmp_path / "disk", "ext4", 48 * MIB) as disk:
        yield disk


def fail(place: Path) -> None:
    """Make every access fail with EIO (FS_IOC_SHUTDOWN, as when a cable is pulled)."""
    descriptor = os.open(place, os.O_RDONLY)
    fcntl.ioctl(descriptor, 0x8004587D, struct.pack("I", 2))
    os.close(descriptor)


@pytest.mark.needs("mkfs.ext4", root=True)
async def test_failing_disk_does_not_break_running_transfers(hub: FakeRegistry, failing_disk: Path) -> None:
    """A client in mid-transfer gets the rest from the upstream."""
    async with mirror_of(hub, failing_disk / "cache") as mirror:
        image = new_image(hub, "t")
        await pull(mirror, image)
        layer, data = image.layers[1], image.layers_data[1]
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", f"/v2/library/x/blobs/{layer}")
            await wire.head()
            await asyncio.to_thread(fail, failing_disk)
            assert await wire.reader.readexactly(len(data)) == data
        await pull(mirror, image)
        await pull(mirror, new_image(hub, "u"))
        assert "io_error" in await troubles(mirror)
        await mirror.service._store.upkeep.recover()
        assert "io_error" in await troubles(mirror)


@pytest.mark.needs("unshare", root=True)
async def test_full_disk_at_start(hub: FakeRegistry, small_disk: Path) -> None:
    """After a power failure, say, the mirror starts, passes through, and keeps again once there is room."""
    await asyncio.to_thread(fill_up, small_disk / "others")
    async with mirror_of(hub, small_disk / "cache") as mirror:
        await pull(mirror, new_image(hub, "t"))
        assert await troubles(mirror) == {"full"}
        await asyncio.to_thread((small_disk / "others").unlink)
        await mirror.service._store.upkeep.recover()
        assert await is_kept(hub, mirror, "after")


async def test_removed_folder_is_recreated(hub: FakeRegistry, tmp_path: Path) -> None:
    """The folder is removed while in use, and recreated at once or by housekeeping."""
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        image = new_image(hub, "t")
        await pull(mirror, image)
        await asyncio.to_thread(shutil.rmtree, tmp_path / "cache")
        await pull(mirror, new_image(hub, "u"))
        await mirror.service._store.upkeep.recover()
        assert await is_kept(hub, mirror, "after")
        await pull(mirror, image)
        assert await mirror.service._store.upkeep.check() == []
        version = await asyncio.to_thread((tmp_path / "cache" / "version").read_text)
        assert version == "1\n"


def overwrite(path: Path) -> None:
    """Overwrite the middle of a file, where SQLite has its pages, and the log that could restore them."""
    for each in path.parent.glob("cache.db-*"):
        each.unlink()
    with path.open("r+b") as file:
        file.write(b"this is no database" * 300)


@pytest.mark.parametrize("which", ["books", "blobs"])
@pytest.mark.parametrize("running", [True, False])
async def test_corrupt_database_is_recreated(
    hub: FakeRegistry, tmp_path: Path, which: str, running: bool
) -> None:
    """A corrupt database, at start or in use, is quarantined and recreated, and pulls go on."""
    image = new_image(hub, "t")
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, tags={"fresh": 0})
    database = tmp_path / "cache" / which / "cache.db"
    async with serving(config) as mirror:
        await pull(mirror, image)
        if running:
            store = mirror.service._store
            await mirror.settled()
            # The last connection that is closed writes its log back, over what is corrupt: close all before.
            await store.executor.run_in_every_thread(store.folder.recovery.drop_connections)
            await asyncio.to_thread(overwrite, database)
            await pull(mirror, image)
            await store.upkeep.recover()
            assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "quarantine")
            assert await is_kept(hub, mirror, "after")
    if not running:
        await asyncio.to_thread(overwrite, database)
    async with serving(config) as mirror:
        await pull(mirror, image)
        assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "later")
        assert [
            each for each in await mirror.service._store.upkeep.check() if "unknown file" not in each
        ] == []
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "quarantine")


async def test_configured_pins_outlive_the_index(hub: FakeRegistry, tmp_path: Path) -> None:
    """Housekeeping writes the pins again, once there is an index again."""
    config = configured(tmp_path / "cache", {"docker.io": hub.url})
    pinned = config.cache.model_copy(update={"pins": ("docker.io/library/x:t",)})
    async with serving(config.model_copy(update={"cache": pinned})) as mirror:
        store = mirror.service._store
        before = await store.executor.run(store.folder.pins.all)
        await asyncio.to_thread(overwrite, tmp_path / "cache" / "books" / "cache.db")
        await pull(mirror, new_image(hub, "t"))
        await store.upkeep.recover()
        after = await store.executor.run(store.folder.pins.all)
        assert [each.pin for each in before] == [each.pin for each in after]
        assert len(after) == 1


async def test_locked_database_is_waited_for_once(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every client waits; and the database is used again once it is free."""
    monkeypatch.setattr("mirror.store.metadata.index.BUSY_SECONDS", 0.05)
    monkeypatch.setattr("mirror.store.metadata.database.BUSY_SECONDS", 0.05)
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        holder = await asyncio.to_thread(hold, tmp_path / "cache" / "books" / "cache.db")
        await pull(mirror, new_image(hub, "t"))
        assert await troubles(mirror) == {"busy"}
        await asyncio.to_thread(holder.close)
        await mirror.service._store.upkeep.recover()
        assert await is_kept(hub, mirror, "after")


def hold(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def test_lost_index_opens_nothing_by_digest(hub: FakeRegistry, tmp_path: Path) -> None:
    """Invariant 5 holds: a repository gets only content that the upstream confirms for it."""
    secret = hub.add_blob("library/private", BIG)
    hub.add_blob("library/other", b"not that one")
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        assert (await get(mirror.address, f"/v2/library/private/blobs/{secret}")).body == BIG
        await mirror.landed(secret)
        await asyncio.to_thread(block_folder, tmp_path / "cache" / "books")
        reply = await get(mirror.address, f"/v2/library/other/blobs/{secret}")
        assert reply.status == 404
        asked = hub.requests("GET", secret)
        for _ in range(2):
            assert (await get(mirror.address, f"/v2/library/private/blobs/{secret}")).body == BIG
        assert hub.requests("GET", secret) == asked


def block_folder(folder: Path) -> None:
    """Make the folder unusable, and impossible to recreate."""
    shutil.rmtree(folder)
    folder.write_text("a file")


@pytest.fixture
async def diskless(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """Run a mirror that cannot write anything."""
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        await asyncio.to_thread(block_folder, tmp_path / "cache" / "partial")
        yield mirror


def path_of(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


async def test_passthrough_of_ranges(hub: FakeRegistry, diskless: Running) -> None:
    """A range before the end is requested as it is; one with the end costs the whole blob, and is right."""
    digest = hub.add_blob("library/x", os.urandom(MIB) + BIG)
    data = hub.repository("library/x").blobs[str(digest)]

    async def ranged(span: str) -> Reply:
        return await get(diskless.address, path_of(digest), f"Range: bytes={span}")

    reply = await ranged("10-99")
    assert (reply.status, reply.body) == (206, data[10:100])
    received = await diskless.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')
    assert received == 90
    reply = await ranged("-7")
    assert (reply.status, reply.body) == (206, data[-7:])
    reply = await ranged(f"5-{len(data) - 2}")
    assert (reply.status, reply.body == data[5:-1]) == (206, True)
    assert (await ranged(f"{len(data)}-")).status == 416


async def test_passthrough_cuts_wrong_bytes_short(hub: FakeRegistry, diskless: Running) -> None:
    """The client sees a short body; a blob that is held back whole is an error, or fetched again."""
    digest, small = hub.add_blob("library/x", BIG), hub.add_blob("library/x", b"small")
    hub.fault(Fault(data=flipped(BIG, 100)), digest, "GET", times=2)
    for _ in range(2):
        reply = await get(diskless.address, path_of(digest))
        assert (reply.complete, reply.reset) == (False, False)
        assert len(reply.body) <= len(BIG) - 4 * MIB
    assert (await get(diskless.address, path_of(digest))).body == BIG
    hub.fault(Fault(data=b"smell"), small, "GET")
    assert (await get(diskless.address, path_of(small))).body == b"small"
    hub.fault(Fault(data=b"smell"), small, "GET", times=2)
    assert (await get(diskless.address, path_of(small))).status == 404


async def test_passthrough_resumes_a_broken_transfer(hub: FakeRegistry, diskless: Running) -> None:
    """The transfer resumes where it stopped; a blob that the upstream lacks is the upstream's 404."""
    digest = hub.add_blob("library/x", BIG)
    hub.fault(Fault(cut_at=MIB), digest, "GET")
    assert (await get(diskless.address, path_of(digest))).body == BIG
    received = await diskless.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')
    assert received == len(BIG)
    assert (await get(diskless.address, path_of(Digest.of(b"nothing")))).status == 404


async def test_passthrough_ends_when_its_client_leaves(hub: FakeRegistry, diskless: Running) -> None:
    """No other client reads the transfer."""
    digest = hub.add_blob("library/x", BIG * 4)
    gate = hub.hold(digest, after=LARGE)
    asking = asyncio.ensure_future(get(diskless.address, path_of(digest)))
    await gate.reached.wait()
    asking.cancel()
    gate.release()
    source = diskless.service._upstreams["docker.io"].own
    while source.slots.active:  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0)
