"""The quota during a burst: what is here is never more than it allows, but for what is in flight then."""

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

# Above what is handled in memory (SMALL_BYTES), so that it is a file from its first byte.
SIZE = 300_000
BLOBS, CLIENTS, PULLS = 24, 4, 15

# One blob more than there are clients: some are always here that nobody reads, and all of that can go.
QUOTA = (CLIENTS + 1) * SIZE + 50_000

# For an image of `images_of`.
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
    """What is in flight as the clients see it, and what is on the disk."""

    def __init__(self, mirror: Fleet) -> None:
        self.blobs = BlobStore(mirror.cache / "blobs", mirror.cache / "quarantine")
        self._partials = mirror.cache / "partial"
        self._asked: Counter[Digest] = Counter()
        self._began: list[Digest] = []  # all of them, in order

    @contextmanager
    def flight(self, digest: Digest) -> Iterator[None]:
        self._asked[digest] += 1
        self._began.append(digest)
        yield
        self._asked -= Counter([digest])  # and none with 0

    async def landed(self, digest: Digest) -> None:
        """Until who has filled it has made room: the lock's name is what goes last."""
        path = lock_path(digest, self._partials)
        while await asyncio.to_thread(path.exists):  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.001)

    async def look(self) -> None:
        """That it is not more than it may be at this moment."""
        asked, before = set(self._asked), len(self._began)
        held = await asyncio.to_thread(self._held)
        asked.update(self._began[before:])
        assert held <= QUOTA + len(asked) * SIZE, f"{held} bytes, and {len(asked)} blobs in flight"

    def _held(self) -> int:
        """Not as of one moment: what is adopted meanwhile is missed, and nothing counts twice."""
        held = self.blobs.size()
        for path in self._partials.glob("*.data"):
            with suppress(FileNotFoundError):
                held += path.stat().st_size
        return held


async def client(mirror: Fleet, watch: Watch, image: FakeImage, chance: random.Random) -> None:
    """One blob after the other, some of them again."""
    for _ in range(PULLS):
        digest = chance.choice(image.layers)
        with watch.flight(digest):
            reply = await get(mirror.address, f"/v2/{image.repository}/blobs/{digest}")
            assert (reply.status, Digest.of(reply.body)) == (200, digest)
            await watch.landed(digest)
        await watch.look()


async def test_a_burst_through_two_workers(hub: FakeRegistry, tmp_path: Path) -> None:
    """All of it was used a moment ago, and it is five times what there is room for: the quota holds after
    each pull, but for what is in flight just then; and every pull is right.
    """
    image = hub.add_image("library/x", "t", some_layers(BLOBS, SIZE))
    async with fleet(tmp_path, hub.url, 2, CACHE) as mirror:
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
        watch = await asyncio.to_thread(Watch, mirror)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(mirror, watch, image, random.Random(number)))
        await watch.look()
        evicted = await mirror.metric('registry_mirror_evicted_bytes_total{reason="used"}')
        assert evicted >= (BLOBS - CLIENTS - 1) * SIZE
        await asyncio.to_thread(watch.blobs.close)


async def test_a_burst_of_small_things(hub: FakeRegistry, tmp_path: Path) -> None:
    """Manifests, configs and small layers too; what has come last stays, and what came before makes room."""
    images = images_of(hub, 12)
    async with limited(hub, tmp_path / "cache", 3) as mirror:
        store = mirror.service._store
        await asyncio.gather(*(pull(mirror.address, image) for image in images))
        for digest in (digest for image in images for digest in image.blobs):
            await mirror.landed(digest)
        assert (await store.stats())[0] <= 3 * ROOM
        await pull(mirror.address, images[0])
        await mirror.landed(images[0].layers[0])
        assert (await store.stats())[0] <= 3 * ROOM
        assert await store.executor.run(store.folder.has, images[0].layers[0])


async def test_manifests_alone(hub: FakeRegistry, tmp_path: Path) -> None:
    """Of those that nobody pulls the blobs of, as many stay as there is room for."""
    padding = [number * b" " + 30_000 * b" " for number in range(10)]
    manifests = [hub.add_manifest("library/x", image_manifest(b"{}", []) + each) for each in padding]
    async with limited(hub, tmp_path / "cache", 1) as mirror:
        for digest in manifests:
            assert (await get(mirror.address, f"/v2/library/x/manifests/{digest}")).status == 200
            assert (await mirror.service._store.stats())[0] <= ROOM


async def test_room_is_made_when_a_download_begins(hub: FakeRegistry, tmp_path: Path) -> None:
    """And not only when all of it has come: it needs the room meanwhile."""
    images = images_of(hub, 3)
    image = hub.add_image("library/large", "t", some_layers(1, 3 * LAYER))
    async with limited(hub, tmp_path / "cache", 3) as mirror:
        store = mirror.service._store
        for each in images:
            await pull(mirror.address, each)
            await mirror.landed(each.layers[0])
        gate = hub.hold(image.layers[0], after=1)
        pulling = asyncio.ensure_future(pull(mirror.address, image))
        await gate.reached.wait()
        while (await store.stats())[0] > LAYER:  # noqa: ASYNC110  # nothing else tells
            await asyncio.sleep(0)
        gate.release()
        await pulling
