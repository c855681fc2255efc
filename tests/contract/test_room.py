"""The quota during a burst: the cache never holds more than allowed, except blobs in flight."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from mirror.store.lock import lock_path
from tests.contract.test_keeping import LAYER, images_of, limited, pull
from tests.e2e.fleet import Fleet, fleet
from tests.fakes.content import FakeImage, image_manifest, some_layers
from tests.fakes.registry import FakeRegistry
from tests.wire import get

# Above SMALL_BYTES, so that a blob is a file from its first byte.
SIZE = 300_000
BLOBS, CLIENTS, PULLS = 24, 4, 15

# One blob more than there are clients: some blobs are always unread, and can go.
QUOTA = (CLIENTS + 1) * SIZE + 50_000

# Room for one image of `images_of`, in bytes.
ROOM = LAYER + 2000

CACHE = f"""
[cache]
max_size = {QUOTA}
min_free = "0"
"""


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


class Watch:
    """The blobs in flight, as the clients see them, and the bytes on the disk."""

    def __init__(self, mirror: Fleet) -> None:
        self.blobs = BlobStore(mirror.cache / "blobs", mirror.cache / "quarantine")
        self._partials = mirror.cache / "partial"
        self._in_flight: Counter[Digest] = Counter()
        self._started: list[Digest] = []  # all requests, in order

    @contextmanager
    def in_flight(self, digest: Digest) -> Iterator[None]:
        """Count a blob as in flight."""
        self._in_flight[digest] += 1
        self._started.append(digest)
        yield
        self._in_flight -= Counter([digest])  # which drops counts of 0

    async def wait_filled(self, digest: Digest) -> None:
        """Wait until the fill has made room: the name of its lock goes last."""
        path = lock_path(digest, self._partials)
        while await asyncio.to_thread(path.exists):  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.001)

    async def check_room(self) -> None:
        """Check that the cache holds no more than it may at this moment."""
        in_flight_now, before = set(self._in_flight), len(self._started)
        used = await asyncio.to_thread(self._used_bytes)
        in_flight_now.update(self._started[before:])
        assert used <= QUOTA + len(in_flight_now) * SIZE, (
            f"{used} bytes, and {len(in_flight_now)} blobs in flight"
        )

    def _used_bytes(self) -> int:
        """Return the bytes on the disk.

        Not of one moment: an adoption meanwhile is missed, and nothing counts twice.
        """
        used = self.blobs.table.size()
        for path in self._partials.glob("*.data"):
            with suppress(FileNotFoundError):
                used += path.stat().st_size
        return used


async def client(mirror: Fleet, watch: Watch, image: FakeImage, chance: random.Random) -> None:
    """Pull one blob after the other, some of them again."""
    for _ in range(PULLS):
        digest = chance.choice(image.layers)
        with watch.in_flight(digest):
            reply = await get(mirror.address, f"/v2/{image.repository}/blobs/{digest}")
            assert (reply.status, Digest.of(reply.body)) == (200, digest)
            await watch.wait_filled(digest)
        await watch.check_room()


@pytest.mark.slow
async def test_quota_holds_in_a_burst_through_two_workers(hub: FakeRegistry, tmp_path: Path) -> None:
    """The quota holds after each pull, except for blobs in flight, and every pull is right.

    All blobs were used a moment ago, and are five times the quota.
    """
    image = hub.add_image("library/x", "t", some_layers(BLOBS, SIZE))
    async with fleet(tmp_path, hub.url, 2, CACHE) as mirror:
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
        watch = await asyncio.to_thread(Watch, mirror)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(mirror, watch, image, random.Random(number)))
        await watch.check_room()
        evicted = await mirror.metric('registry_mirror_evicted_bytes_total{reason="used"}')
        assert evicted >= (BLOBS - CLIENTS - 1) * SIZE
        await asyncio.to_thread(watch.blobs.close)


async def test_quota_holds_in_a_burst_of_small_content(hub: FakeRegistry, tmp_path: Path) -> None:
    """Manifests, configs and small layers count too; the latest content stays, older content goes."""
    images = images_of(hub, 12)
    async with limited(hub, tmp_path / "cache", 3) as mirror:
        store = mirror.service._store
        await asyncio.gather(*(pull(mirror.address, image) for image in images))
        for digest in (digest for image in images for digest in image.blobs):
            await mirror.landed(digest)
        assert (await store.upkeep.stats())[0] <= 3 * ROOM
        await pull(mirror.address, images[0])
        await mirror.landed(images[0].layers[0])
        assert (await store.upkeep.stats())[0] <= 3 * ROOM
        assert await store.executor.run(store.folder.reader.has, images[0].layers[0])


async def test_quota_holds_for_manifests_alone(hub: FakeRegistry, tmp_path: Path) -> None:
    """Manifests whose blobs no client pulls stay as far as there is room."""
    padding = [number * b" " + 30_000 * b" " for number in range(10)]
    manifests = [hub.add_manifest("library/x", image_manifest(b"{}", []) + each) for each in padding]
    async with limited(hub, tmp_path / "cache", 1) as mirror:
        for digest in manifests:
            assert (await get(mirror.address, f"/v2/library/x/manifests/{digest}")).status == 200
            assert (await mirror.service._store.upkeep.stats())[0] <= ROOM


async def test_quota_makes_room_when_a_download_begins(hub: FakeRegistry, tmp_path: Path) -> None:
    """A download needs the room from its start, not only at its end."""
    images = images_of(hub, 3)
    image = hub.add_image("library/large", "t", some_layers(1, 3 * LAYER))
    async with limited(hub, tmp_path / "cache", 3) as mirror:
        store = mirror.service._store
        for each in images:
            await pull(mirror.address, each)
            await mirror.landed(each.layers[0])
        gate = hub.hold(image.layers[0], after=3 * LAYER - 1)
        pulling = asyncio.ensure_future(pull(mirror.address, image))
        await gate.reached.wait()
        while (await store.upkeep.stats())[0] > LAYER:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0)
        gate.release()
        await pulling
