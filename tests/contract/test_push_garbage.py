"""Pushes beside other work on the same folder: garbage that is collected, and other workers."""

import asyncio
from pathlib import Path

from mirror.manage.garbage_collector import GarbageCollector
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from tests.contract.hosting import hosting
from tests.fakes.pusher import Pusher, error, manifest_of
from tests.running import Running, serving

TAGS, NAMES = ("1", "2", "3", "4"), ("office/one", "office/two")
DATA = bytes(range(256)) * 4000


def grow_old(folder: CacheDirectory) -> None:
    """Let all blobs that no manifest names be garbage by their age."""
    folder.index.database.cache._sql("UPDATE Cache SET store_time = 0 WHERE key LIKE 'link:office/%'")


def collect(folder: CacheDirectory) -> None:
    list(GarbageCollector(folder, dry_run=False).items())


async def push_beside_garbage(mirror: Running, pusher: Pusher, tag: str, layers: list[bytes]) -> None:
    """Push an image whose blobs are collected meanwhile, and again until that is over."""
    run, folder = mirror.service._store.executor.run, mirror.service.folder
    for collected in (True, True, False):
        for data in (b"{}", *layers):
            await pusher.blob(data)
        await run(grow_old, folder)
        collecting = asyncio.ensure_future(run(collect, folder) if collected else asyncio.sleep(0))
        pushed = await pusher.manifest(tag, manifest_of(layers))
        await collecting
        if pushed.status == 201:
            return
        assert error(pushed) == (400, "MANIFEST_BLOB_UNKNOWN")
    raise AssertionError("refused without a reason")


async def test_push_is_whole_or_refused_while_garbage_is_collected(tmp_path: Path) -> None:
    """A manifest that is taken has its blobs for good; one that came too late is refused."""
    async with serving(await hosting(tmp_path)) as mirror:
        for name in NAMES:
            async with await Pusher.open(mirror.address, name) as pusher:
                for tag in TAGS:
                    await push_beside_garbage(mirror, pusher, tag, [b"base", tag.encode()])
        await mirror.service._store.executor.run(collect, mirror.service.folder)
        for name in NAMES:
            async with await Pusher.open(mirror.address, name) as pusher:
                for tag in TAGS:
                    layers = [b"base", tag.encode()]
                    assert (await pusher.ask("GET", f"manifests/{tag}")).body == manifest_of(layers)
                    for data in layers:
                        assert (await pusher.ask("GET", f"blobs/{Digest.of(data)}")).body == data
        assert await mirror.service._store.upkeep.check() == []


async def test_two_workers_take_one_upload(tmp_path: Path) -> None:
    """Chunk by chunk over either of them, with its end and its manifest; each sees all of it at once."""
    config = await hosting(tmp_path)
    async with (
        serving(config) as one,
        serving(config) as two,
        await Pusher.open(one.address) as first,
        await Pusher.open(two.address) as second,
    ):
        location = await first.session()
        for number in range(8):
            chunk = DATA[number * len(DATA) // 8 : (number + 1) * len(DATA) // 8]
            pusher = (first, second)[number % 2]
            assert (await pusher.ask("PATCH", location, body=chunk)).status == 202
        assert (await second.finish(location, Digest.of(DATA))).status == 201
        assert (await first.ask("GET", location)).status == 404
        await second.blob(b"{}")
        assert (await first.manifest("1", manifest_of([DATA]))).status == 201
        for pusher in (first, second):
            assert (await pusher.ask("GET", "manifests/1")).body == manifest_of([DATA])
            assert (await pusher.ask("GET", f"blobs/{Digest.of(DATA)}")).body == DATA
        assert (await second.ask("DELETE", "manifests/1")).status == 202
        assert (await first.ask("GET", "manifests/1")).status == 404
