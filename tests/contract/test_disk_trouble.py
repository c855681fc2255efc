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
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.oci.digest import Digest
from mirror.store.memory_cache import MemoryCache
from tests.disks import MIB, fill_up, formatted, mount, tmpfs
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault, Gate, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, mirror_of, serving
from tests.wire import Reply, Wire, get, head

BIG = os.urandom(LARGE)


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    with tmpfs(tmp_path / "disk", 12 * MIB) as disk:
        yield disk


async def pulled(mirror: Running, image: FakeImage) -> None:
    """A whole pull, as clients do it, and every byte of it right."""
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


def an_image(hub: FakeRegistry, tag: str) -> FakeImage:
    """With a small layer and a large one, which no other image has."""
    return hub.add_image("library/x", tag, [f"small {tag}".encode(), os.urandom(64) + BIG])


async def troubles(mirror: Running) -> set[str]:
    state = json.loads((await get(mirror.address, "/readyz")).body)
    return {each["kind"] for each in state["cache"]["trouble"]}


async def is_kept(hub: FakeRegistry, mirror: Running, tag: str) -> bool:
    """Whether an image that was pulled twice was fetched once."""
    image = an_image(hub, tag)
    for _ in range(2):
        await pulled(mirror, image)
    return hub.requests("GET", image.layers[1]) == hub.requests("GET", image.layers[0]) == 1


@pytest.mark.needs("unshare", root=True)
async def test_a_full_disk(hub: FakeRegistry, small_disk: Path) -> None:
    """Somebody else fills it: pulls go on, one line says what to do, and caching resumes by itself."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        assert await is_kept(hub, mirror, "before")
        await asyncio.to_thread(fill_up, small_disk / "others")
        with capture_logs() as lines:
            for tag in ("a", "b", "c"):
                await pulled(mirror, an_image(hub, tag))
        assert await troubles(mirror) == {"full"}
        told = [line for line in lines if "trouble with the cache folder" in line["event"]]
        assert len(told) == 1
        assert "make room" in told[0]["to_do"]
        assert not [line for line in lines if line["event"] == "task failed"]
        label = 'registry_mirror_cache_trouble{kind="full",what="writing"}'
        await get(mirror.address, "/metrics")
        assert await mirror.metric(label) == 1
        assert await mirror.metric("registry_mirror_passed_through_total") >= 3
        await asyncio.to_thread((small_disk / "others").unlink)
        await mirror.service._store.recover()
        assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "after")
        assert await mirror.service._store.check() == []


@pytest.mark.needs("unshare", root=True)
async def test_a_disk_that_fills_up_in_the_middle_of_a_blob(hub: FakeRegistry, small_disk: Path) -> None:
    """Who reads the growing file is brought the rest from the upstream, and notices nothing."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        image = an_image(hub, "t")
        layer = image.layers[1]
        await get(mirror.address, f"/v2/library/x/manifests/{image.manifest}")
        gate = hub.hold(layer, after=LARGE // 2)
        asking = [
            asyncio.ensure_future(get(mirror.address, f"/v2/library/x/blobs/{layer}")) for _ in range(3)
        ]
        await gate.reached.wait()
        await asyncio.to_thread(fill_up, small_disk / "others")
        gate.release()
        for reply in await asyncio.gather(*asking):
            assert (reply.status, reply.complete, reply.body == image.layers_data[1]) == (200, True, True)
        assert await troubles(mirror) == {"full"}
        # Nor does what came of it fill the disk for ever.
        await mirror.landed(layer)
        left = await asyncio.to_thread(os.listdir, small_disk / "cache" / "partial")
        assert [each for each in left if each.endswith(".data")] == []


@pytest.mark.needs("unshare", root=True)
async def test_wrong_bytes_before_the_disk_was_full(hub: FakeRegistry, small_disk: Path) -> None:
    """A right end behind a wrong beginning would be a complete wrong blob (invariant 4)."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        image = an_image(hub, "t")
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
async def test_a_blob_larger_than_the_disk(hub: FakeRegistry, small_disk: Path) -> None:
    """Is passed through, and everything else is kept: that is no trouble with the disk."""
    data = os.urandom(14 * MIB)
    image = hub.add_image("library/x", "t", [data])
    async with mirror_of(hub, small_disk / "cache") as mirror:
        await pulled(mirror, image)
        assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "other")


@pytest.mark.needs("unshare", root=True)
async def test_what_was_not_used_for_long_makes_room(hub: FakeRegistry, small_disk: Path) -> None:
    """A full disk is first of all a reason to evict."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        store = mirror.service._store
        for tag in ("a", "b", "c", "d"):
            image = an_image(hub, tag)
            await pulled(mirror, image)
            await store.flush_last_use()
            await store.executor.run(store.folder.blobs.touch, dict.fromkeys(image.blobs, 1.0))
        assert await troubles(mirror) == set()
        assert hub.requests("GET", image.layers[1]) == 1
        await pulled(mirror, image)
        assert hub.requests("GET", image.layers[1]) == 1


@pytest.mark.needs("unshare", root=True)
async def test_a_disk_that_becomes_read_only(hub: FakeRegistry, small_disk: Path) -> None:
    """What is here is served from it; everything else is passed through."""
    async with mirror_of(hub, small_disk / "cache") as mirror:
        image = an_image(hub, "here")
        await pulled(mirror, image)
        mirror.service._store._memory = MemoryCache(0)  # what is read is the disk
        # Where files are open for writing nobody can remount: so below the databases only.
        folders = [small_disk / "cache" / name for name in ("partial", "blobs/sha256")]
        for each in folders:
            await asyncio.to_thread(mount, "--bind", str(each), str(each))
            await asyncio.to_thread(mount, "-o", "remount,bind,ro", str(each))
        try:
            asked = hub.requests("GET", "/blobs/")
            await pulled(mirror, image)
            assert hub.requests("GET", "/blobs/") == asked
            await pulled(mirror, an_image(hub, "new"))
            assert await troubles(mirror) == {"read_only"}
            await mirror.service._store.recover()
            assert await troubles(mirror) == {"read_only"}
        finally:
            for each in folders:
                await asyncio.to_thread(subprocess.run, ["umount", str(each)], check=True)
        await mirror.service._store.recover()
        assert await is_kept(hub, mirror, "after")


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system whose disk can be made to fail: see `fail`."""
    with formatted(tmp_path / "disk", "ext4", 48 * MIB) as disk:
        yield disk


def fail(place: Path) -> None:
    """From now on everything there is EIO (FS_IOC_SHUTDOWN, as when a cable is pulled)."""
    descriptor = os.open(place, os.O_RDONLY)
    fcntl.ioctl(descriptor, 0x8004587D, struct.pack("I", 2))
    os.close(descriptor)


@pytest.mark.needs("mkfs.ext4", root=True)
async def test_a_disk_that_fails(hub: FakeRegistry, failing_disk: Path) -> None:
    """Even for who is being sent something from it: the upstream brings the rest."""
    async with mirror_of(hub, failing_disk / "cache") as mirror:
        image = an_image(hub, "t")
        await pulled(mirror, image)
        layer, data = image.layers[1], image.layers_data[1]
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", f"/v2/library/x/blobs/{layer}")
            await wire.head()
            await asyncio.to_thread(fail, failing_disk)
            assert await wire.reader.readexactly(len(data)) == data
        await pulled(mirror, image)
        await pulled(mirror, an_image(hub, "u"))
        assert "io_error" in await troubles(mirror)
        await mirror.service._store.recover()
        assert "io_error" in await troubles(mirror)


@pytest.mark.needs("unshare", root=True)
async def test_it_starts_with_a_full_disk(hub: FakeRegistry, small_disk: Path) -> None:
    """After a power failure, say: it starts, passes through, and keeps again when there is room."""
    await asyncio.to_thread(fill_up, small_disk / "others")
    async with mirror_of(hub, small_disk / "cache") as mirror:
        await pulled(mirror, an_image(hub, "t"))
        assert await troubles(mirror) == {"full"}
        await asyncio.to_thread((small_disk / "others").unlink)
        await mirror.service._store.recover()
        assert await is_kept(hub, mirror, "after")


async def test_a_folder_that_is_removed(hub: FakeRegistry, tmp_path: Path) -> None:
    """While it is in use: made anew, at once or when housekeeping finds out."""
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        image = an_image(hub, "t")
        await pulled(mirror, image)
        await asyncio.to_thread(shutil.rmtree, tmp_path / "cache")
        await pulled(mirror, an_image(hub, "u"))
        await mirror.service._store.recover()
        assert await is_kept(hub, mirror, "after")
        await pulled(mirror, image)
        assert await mirror.service._store.check() == []
        version = await asyncio.to_thread((tmp_path / "cache" / "version").read_text)
        assert version == "1\n"


def overwrite(path: Path) -> None:
    """The middle of a file, where SQLite has its pages; and what it would mend it with."""
    for each in path.parent.glob("cache.db-*"):
        each.unlink()
    with path.open("r+b") as file:
        file.write(b"this is no database" * 300)


@pytest.mark.parametrize("which", ["books", "blobs"])
@pytest.mark.parametrize("running", [True, False])
async def test_a_corrupt_database(hub: FakeRegistry, tmp_path: Path, which: str, running: bool) -> None:
    """Before the start or under a running mirror: set aside and made anew, and pulls go on."""
    image = an_image(hub, "t")
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, tags={"fresh": 0})
    database = tmp_path / "cache" / which / "cache.db"
    async with serving(config) as mirror:
        await pulled(mirror, image)
        if running:
            store = mirror.service._store
            await asyncio.to_thread(overwrite, database)
            # An open connection goes on with the log that was removed, and which thread has one is chance.
            await store.executor.run_in_every_thread(store.folder.recovery.drop_connections)
            await pulled(mirror, image)
            await store.recover()
            assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "quarantine")
            assert await is_kept(hub, mirror, "after")
    if not running:
        await asyncio.to_thread(overwrite, database)
    async with serving(config) as mirror:
        await pulled(mirror, image)
        assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "anew")
        assert [each for each in await mirror.service._store.check() if "unknown file" not in each] == []
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "quarantine")


async def test_configured_pins_outlive_the_books(hub: FakeRegistry, tmp_path: Path) -> None:
    """They are written into the new ones, when housekeeping comes to it; or when there are any at all."""
    config = configured(tmp_path / "cache", {"docker.io": hub.url})
    pinned = config.cache.model_copy(update={"pins": ("docker.io/library/x:t",)})
    async with serving(config.model_copy(update={"cache": pinned})) as mirror:
        store = mirror.service._store
        before = await store.executor.run(store.folder.pins.all)
        await asyncio.to_thread(overwrite, tmp_path / "cache" / "books" / "cache.db")
        await pulled(mirror, an_image(hub, "t"))
        await store.recover()
        after = await store.executor.run(store.folder.pins.all)
        assert [each.pin for each in before] == [each.pin for each in after]
        assert len(after) == 1


async def test_a_database_that_somebody_holds(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waited for once, not by every client; and used again when it is free."""
    monkeypatch.setattr("mirror.store.metadata.index.BUSY_SECONDS", 0.05)
    monkeypatch.setattr("mirror.store.database.BUSY_SECONDS", 0.05)
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        holder = await asyncio.to_thread(hold, tmp_path / "cache" / "books" / "cache.db")
        await pulled(mirror, an_image(hub, "t"))
        assert await troubles(mirror) == {"busy"}
        await asyncio.to_thread(holder.close)
        await mirror.service._store.recover()
        assert await is_kept(hub, mirror, "after")


def hold(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def test_without_books_a_digest_opens_nothing(hub: FakeRegistry, tmp_path: Path) -> None:
    """Invariant 5 holds: what the upstream does not confirm for a repository, it does not get."""
    secret = hub.add_blob("library/private", BIG)
    hub.add_blob("library/other", b"not that one")
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        assert (await get(mirror.address, f"/v2/library/private/blobs/{secret}")).body == BIG
        await mirror.landed(secret)
        await asyncio.to_thread(in_the_way, tmp_path / "cache" / "books")
        reply = await get(mirror.address, f"/v2/library/other/blobs/{secret}")
        assert reply.status == 404
        asked = hub.requests("GET", secret)
        for _ in range(2):
            assert (await get(mirror.address, f"/v2/library/private/blobs/{secret}")).body == BIG
        assert hub.requests("GET", secret) == asked


def in_the_way(folder: Path) -> None:
    """A folder that cannot be used, nor made anew."""
    shutil.rmtree(folder)
    folder.write_text("a file")


@pytest.fixture
async def without(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """A mirror that can write nothing."""
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        await asyncio.to_thread(in_the_way, tmp_path / "cache" / "partial")
        yield mirror


def path_of(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


async def test_ranges_are_passed_through(hub: FakeRegistry, without: Running) -> None:
    """What does not touch the end is asked for as it is; what does costs the whole, and is right."""
    digest = hub.add_blob("library/x", os.urandom(MIB) + BIG)
    data = hub.repository("library/x").blobs[str(digest)]

    async def ranged(span: str) -> Reply:
        return await get(without.address, path_of(digest), f"Range: bytes={span}")

    reply = await ranged("10-99")
    assert (reply.status, reply.body) == (206, data[10:100])
    received = await without.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')
    assert received == 90
    reply = await ranged("-7")
    assert (reply.status, reply.body) == (206, data[-7:])
    reply = await ranged(f"5-{len(data) - 2}")
    assert (reply.status, reply.body == data[5:-1]) == (206, True)
    assert (await ranged(f"{len(data)}-")).status == 416


async def test_wrong_bytes_are_not_passed_through_to_the_end(hub: FakeRegistry, without: Running) -> None:
    """The client sees a short body; a blob that is held back whole is an error, or asked for again."""
    digest, small = hub.add_blob("library/x", BIG), hub.add_blob("library/x", b"small")
    hub.fault(Fault(data=flipped(BIG, 100)), digest, "GET", times=2)
    for _ in range(2):
        reply = await get(without.address, path_of(digest))
        assert (reply.complete, reply.reset) == (False, False)
        assert len(reply.body) <= len(BIG) - 4 * MIB
    assert (await get(without.address, path_of(digest))).body == BIG
    hub.fault(Fault(data=b"smell"), small, "GET")
    assert (await get(without.address, path_of(small))).body == b"small"
    hub.fault(Fault(data=b"smell"), small, "GET", times=2)
    assert (await get(without.address, path_of(small))).status == 404


async def test_a_transfer_that_breaks_goes_on(hub: FakeRegistry, without: Running) -> None:
    """From where it stopped; what the upstream does not have is its own 404."""
    digest = hub.add_blob("library/x", BIG)
    hub.fault(Fault(cut_at=MIB), digest, "GET")
    assert (await get(without.address, path_of(digest))).body == BIG
    received = await without.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')
    assert received == len(BIG)
    assert (await get(without.address, path_of(Digest.of(b"nothing")))).status == 404


async def test_a_client_that_leaves_ends_its_transfer(hub: FakeRegistry, without: Running) -> None:
    """It was for nobody else."""
    digest = hub.add_blob("library/x", BIG * 4)
    gate = hub.hold(digest, after=LARGE)
    asking = asyncio.ensure_future(get(without.address, path_of(digest)))
    await gate.reached.wait()
    asking.cancel()
    gate.release()
    source = without.service._upstreams["docker.io"].own
    while source.active_connections:  # noqa: ASYNC110  # nothing else tells
        await asyncio.sleep(0)
