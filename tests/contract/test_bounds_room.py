"""Room: a size that is only named evicts nothing, and room is made as bytes come."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.manifest import OCI_MANIFEST
from mirror.store.blobs import quota
from tests.fakes.content import CONFIG_TYPE, LAYER_TYPE, FakeImage, descriptor, some_layers
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, Running, configured, serving
from tests.unit.cache.test_prefetch import idle
from tests.wire import Wire, get, head

# What is in the cache before each test: more than SMALL_BYTES each, so that it is a file from its first byte.
LAYERS, LAYER = 4, 300_000
# With their manifest and config, these layers nearly fill it.
QUOTA = LAYERS * LAYER + 50_000

# Sizes that a manifest may name: none, odd ones, all that is there, more, and more than any disk has.
CLAIMS = [0, 1, LAYER, QUOTA // 2, QUOTA - 1, QUOTA, QUOTA + 1, 56 << 30, 1 << 50, (1 << 63) - 1]


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@asynccontextmanager
async def full(
    hub: FakeRegistry, folder: Path, room: int = QUOTA, layers: int = LAYERS, **fill: int
) -> AsyncIterator[tuple[Running, FakeImage]]:
    """A mirror with an image in its cache; with the room given, not much more fits."""
    image = hub.add_image("library/kept", "t", some_layers(layers, LAYER))
    config = configured(folder / "cache", {"docker.io": hub.url}, fill={"prefetch": 3, **fill})
    cache = config.cache.model_copy(update={"max_size": Amount(room)})
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        assert (await get(mirror.address, "/v2/library/kept/manifests/t")).status == 200
        for digest in image.blobs:
            assert (await get(mirror.address, f"/v2/library/kept/blobs/{digest}")).status == 200
            await mirror.landed(digest)
        await idle(mirror)
        yield mirror, image


async def evicted(mirror: Running, image: FakeImage) -> int:
    """Return how many of the image's blobs are gone, once all that makes room has ended."""
    tasks = mirror.service._tasks._running
    while making := [each for each in tasks if each.get_name().startswith("make room")]:
        await asyncio.wait(making)
    return len(await mirror.service._store.content.missing_blobs([image.manifest, *image.blobs]))


def claim(hub: FakeRegistry, sizes: list[int], name: str = "claim") -> list[Digest]:
    """Add a manifest whose layers are of these sizes, as it says; none of them is there."""
    layers = [
        {"mediaType": LAYER_TYPE, "digest": str(Digest.of(f"{name} {number}".encode())), "size": size}
        for number, size in enumerate(sizes)
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG_TYPE, name.encode()),
        "layers": layers,
    }
    hub.add_manifest("library/claim", json.dumps(document).encode(), tag=name)
    return [Digest.parse(str(each["digest"])) for each in layers]


@pytest.mark.parametrize("size", [QUOTA - LAYER, 56 << 30])
async def test_room_is_not_made_for_what_a_manifest_claims(
    hub: FakeRegistry, tmp_path: Path, size: int
) -> None:
    """One GET of a small manifest, and then a GET of its layer, which the upstream has not answered."""
    async with full(hub, tmp_path) as (mirror, image):
        layers = claim(hub, [size] * 3)
        gate = hub.hold(layers[0], after=-1, method="GET" if size < QUOTA else "HEAD")
        assert (await get(mirror.address, "/v2/library/claim/manifests/claim")).status == 200
        await idle(mirror)
        assert await evicted(mirror, image) == 0
        asking = asyncio.ensure_future(get(mirror.address, f"/v2/library/claim/blobs/{layers[0]}"))
        await gate.reached.wait()
        await mirror.service._store.upkeep.run_housekeeping()
        assert await evicted(mirror, image) == 0
        gate.release()
        assert (await asking).status == 404
        assert await evicted(mirror, image) == 0


async def test_room_is_not_made_for_any_claim(hub: FakeRegistry, tmp_path: Path) -> None:
    """Random claims, requested in several ways, evict nothing as long as no byte comes."""
    chance = random.Random(1)
    async with full(hub, tmp_path) as (mirror, image), await Wire.open(mirror.address) as wire:
        for number in range(25):
            sizes = [chance.choice([*CLAIMS, chance.randrange(2**40)]) for _ in range(4)]
            layers = claim(hub, sizes, f"claim{number}")
            url = f"/v2/library/claim/manifests/claim{number}"
            assert (await get(mirror.address, url)).status == 200
            for layer in layers:
                path = f"/v2/library/claim/blobs/{layer}"
                method = chance.choice(["GET", "HEAD", "ranged"])
                if method == "HEAD":
                    await head(mirror.address, path)
                    continue
                wire.send("GET", path, ["Range: bytes=5-"] if method == "ranged" else [])
                assert (await wire.reply()).status == 404
            await mirror.service._store.upkeep.run_housekeeping()
            assert await evicted(mirror, image) == 0, sizes


@pytest.mark.parametrize("named", [True, False])
async def test_room_is_not_made_for_a_blob_larger_than_the_quota(
    hub: FakeRegistry, tmp_path: Path, named: bool
) -> None:
    """The blob is passed through before any eviction, by the manifest's size or by that of the answer."""
    async with full(hub, tmp_path, prefetch=0) as (mirror, kept):
        if named:
            image = hub.add_image("library/large", "t", [bytes(QUOTA + 1)])
            assert (await get(mirror.address, "/v2/library/large/manifests/t")).status == 200
            digest = image.layers[0]
        else:
            digest = hub.add_blob("library/large", bytes(QUOTA + 1))
        for _ in range(2):
            reply = await get(mirror.address, f"/v2/library/large/blobs/{digest}")
            assert (reply.status, reply.body) == (200, bytes(QUOTA + 1))
        assert await evicted(mirror, kept) == 0
        assert await mirror.metric("registry_mirror_passed_through_total") == 2
        assert mirror.service.state.troubles() == []
        partials = mirror.config.cache.dir / "partial"
        assert await asyncio.to_thread(lambda: list(partials.iterdir())) == []


async def test_room_is_not_made_where_pins_leave_too_little(hub: FakeRegistry, tmp_path: Path) -> None:
    """A blob that needs the room of pinned content is passed through before any eviction."""
    async with full(hub, tmp_path, prefetch=0) as (mirror, kept):
        other = hub.add_image("library/other", "t", [bytes(1000)])
        large = hub.add_blob("library/large", bytes(LAYER))
        store = mirror.service._store
        for path in ("manifests/t", f"blobs/{other.layers[0]}"):
            assert (await get(mirror.address, f"/v2/library/other/{path}")).status == 200
        await mirror.settled()
        await store.upkeep.configure_pins([Pin.parse("kept:t")])
        assert (await get(mirror.address, f"/v2/library/large/blobs/{large}")).body == bytes(LAYER)
        assert (await evicted(mirror, kept), await evicted(mirror, other)) == (
            0,
            1,
        )  # no client had its config
        assert await mirror.metric("registry_mirror_passed_through_total") == 1


async def test_room_is_not_made_for_a_prefetch(hub: FakeRegistry, tmp_path: Path) -> None:
    """A prefetch evicts nothing; the request of a client for the same blob does."""
    async with full(hub, tmp_path) as (mirror, kept):
        image = hub.add_image("library/x", "t", [bytes([9]) * LAYER])
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
        await idle(mirror)
        assert await evicted(mirror, kept) == 0
        assert hub.requests("GET", image.layers[0]) == 0
        assert (await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")).status == 200
        await mirror.landed(image.layers[0])
        assert await evicted(mirror, kept) > 0


async def test_prefetch_gives_up_room_that_clients_have_taken(hub: FakeRegistry, tmp_path: Path) -> None:
    """A prefetch that no longer fits when it is complete is not kept, and evicts nothing."""
    async with full(hub, tmp_path, room=3 * LAYER + 50_000, layers=1) as (mirror, kept):
        ahead = hub.add_image("library/x", "t", [bytes([9]) * LAYER])
        gate = hub.hold(ahead.layers[0], after=1)
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
        await gate.reached.wait()
        for data in (b"1" * LAYER, b"2" * LAYER):
            digest = hub.add_blob("library/y", data)
            assert (await get(mirror.address, f"/v2/library/y/blobs/{digest}")).body == data
            await mirror.landed(digest)
        gate.release()
        await idle(mirror)
        assert await evicted(mirror, kept) == 0
        assert await mirror.service._store.content.missing_blobs(ahead.layers) == list(ahead.layers)
        assert (await get(mirror.address, f"/v2/library/x/blobs/{ahead.layers[0]}")).body == bytes(
            [9]
        ) * LAYER


async def test_room_is_made_as_bytes_come(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that needs the room of all cached blobs takes only that of its next bytes."""
    monkeypatch.setattr(quota, "ROOM_STEP", 2 * CHUNK)
    monkeypatch.setattr(quota, "ROOM_AHEAD", 4 * CHUNK)
    data = random.Random(1).randbytes(LARGE)
    async with full(hub, tmp_path, room=LARGE + LAYER + 50_000, prefetch=0) as (mirror, kept):
        digest = hub.add_blob("library/x", data)
        gate = hub.hold(digest, after=1)
        pulling = asyncio.ensure_future(get(mirror.address, f"/v2/library/x/blobs/{digest}"))
        await gate.reached.wait()
        assert await evicted(mirror, kept) == 0
        gate.release()
        assert (await pulling).body == data
        await mirror.landed(digest)
        assert await evicted(mirror, kept) == LAYERS - 1


async def grow_old(mirror: Running, image: FakeImage) -> None:
    """Make the image look unused for a day, and let housekeeping see that."""
    store = mirror.service._store
    await store.upkeep.flush_last_use()
    await store.executor.run(
        store.folder.blobs.table.touch, dict.fromkeys(image.blobs, time.time() - 24 * 3600)
    )
    await store.upkeep.run_housekeeping()


@pytest.mark.slow
async def test_room_for_prefetches_is_kept_in_a_full_cache(hub: FakeRegistry, tmp_path: Path) -> None:
    """Blobs that no client has used for long make way before a manifest is asked for."""
    async with full(hub, tmp_path, room=61 * LAYER + 20_000, layers=60) as (mirror, kept):
        await grow_old(mirror, kept)
        ahead = hub.add_image("library/x", "t", [b"1" * LAYER, b"2" * LAYER])
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
        await idle(mirror)
        assert await mirror.service._store.content.missing_blobs(ahead.layers) == []
        assert 0 < await evicted(mirror, kept) <= 4


@pytest.mark.slow
async def test_room_for_prefetches_does_not_let_manifests_replace_the_cache(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """Manifest after manifest, whose layers come and that no client asks for: the headroom, and no more."""
    # Besides layers: the manifests, and the blocks that a running fill takes, of its data and its map.
    async with full(hub, tmp_path, room=61 * LAYER + 60_000, layers=60) as (mirror, kept):
        await grow_old(mirror, kept)
        for number in range(20):
            hub.add_image("library/x", f"t{number}", [b"%6d" % number * (LAYER // 6)])
            assert (await get(mirror.address, f"/v2/library/x/manifests/t{number}")).status == 200
            await idle(mirror)
            await mirror.service._store.upkeep.run_housekeeping()
        assert await evicted(mirror, kept) <= 4
