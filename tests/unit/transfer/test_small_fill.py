"""Small blobs: one request, whole or not at all, once for everybody."""

import asyncio
import os
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.lock import lock_path, try_lock
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running
from tests.wire import Wire, get

SMALL = b"a small layer"
X = Repository("docker.io", "library/x")


@pytest.fixture
async def image(hub: FakeRegistry, mirror: Running) -> FakeImage:
    """Its manifest is known to the mirror, its blobs are not."""
    image = hub.add_image("library/x", "t", [SMALL])
    await get(mirror.address, "/v2/library/x/manifests/t")
    return image


def path_of(digest: Digest) -> str:
    return f"/v2/docker.io/library/x/blobs/{digest}"


async def test_it_comes_whole_and_is_kept(hub: FakeRegistry, mirror: Running, image: FakeImage) -> None:
    """From the upstream with one request; then from memory, and from the disk after that."""
    layer = image.layers[0]
    assert (await get(mirror.address, path_of(layer))).body == SMALL
    assert (await get(mirror.address, path_of(layer))).body == SMALL
    await mirror.landed(layer)
    mirror.service._store._memory._contents.drop((X, layer))
    assert (await get(mirror.address, path_of(layer), "Range: bytes=2-6")).body == b"small"
    assert (hub.requests("GET", layer), hub.requests("HEAD", layer)) == (1, 0)
    assert await mirror.service._store.check() == []


async def test_a_herd_is_one_request(hub: FakeRegistry, mirror: Running, image: FakeImage) -> None:
    """Everybody gets the same bytes; nobody depends on the first, who leaves."""
    layer = image.layers[0]
    gate = hub.hold(layer, after=3)
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(layer))
        await gate.reached.wait()
    asking = [asyncio.ensure_future(get(mirror.address, path_of(layer))) for _ in range(20)]
    await asyncio.sleep(0)
    gate.release()
    assert {reply.body for reply in await asyncio.gather(*asking)} == {SMALL}
    assert hub.requests("GET", layer) == 1


async def test_wrong_bytes_are_asked_once_more(hub: FakeRegistry, mirror: Running, image: FakeImage) -> None:
    """Nobody has had any of them, so nobody notices."""
    layer = image.layers[0]
    hub.fault(Fault(data=b"A small layer"), layer, "GET")
    assert (await get(mirror.address, path_of(layer))).body == SMALL
    assert await mirror.metric('registry_mirror_fill_failures_total{reason="digest"}') == 1


@pytest.mark.parametrize("data", [b"A small layer", SMALL + b"!", SMALL[:-1], b""])
async def test_wrong_bytes_are_never_served(
    hub: FakeRegistry, mirror: Running, image: FakeImage, data: bytes
) -> None:
    """Twice wrong is an error, and nothing is kept of it."""
    layer = image.layers[0]
    for _ in range(2):
        hub.fault(Fault(data=data), layer, "GET")
    reply = await get(mirror.address, path_of(layer))
    assert (reply.status, SMALL in reply.body) == (502, False)
    assert not (await mirror.service._store.look_up(X, layer)).present
    assert (await get(mirror.address, path_of(layer))).body == SMALL


async def test_a_manifest_that_is_wrong_about_the_size(
    hub: FakeRegistry, mirror: Running, image: FakeImage
) -> None:
    """Digest and size are one promise: what has only the digest is not served."""
    layer = image.layers[0]
    link = (await mirror.service._store.look_up(X, layer)).link
    assert link is not None
    await mirror.service._store.add_link(X, layer, type(link)(size=len(SMALL) + 1))
    reply = await get(mirror.address, path_of(layer))
    assert (reply.status, b"13 bytes, not 14" in reply.body) == (502, True)


async def test_an_upstream_that_fails(hub: FakeRegistry, mirror: Running, image: FakeImage) -> None:
    """An error, and the lock is free for the next one."""
    layer = image.layers[0]
    hub.fault(Fault(status=503), layer, "GET")
    assert (await get(mirror.address, path_of(layer))).status == 502
    assert (await get(mirror.address, path_of(layer))).body == SMALL


async def test_a_disk_that_fails_costs_nobody_the_blob(
    hub: FakeRegistry, mirror: Running, image: FakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is passed through (invariant 12), and kept when the disk is well again."""
    layer = image.layers[0]
    store = mirror.service._store

    async def full(*_: object) -> None:
        raise StoreError("keep: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(store._small_writes, "do", full)
        assert (await get(mirror.address, path_of(layer))).body == SMALL
        await mirror.landed(layer)
    assert (await get(mirror.address, path_of(layer))).body == SMALL


async def test_another_process_fills_it(
    hub: FakeRegistry, mirror: Running, image: FakeImage, tmp_path: Path
) -> None:
    """Who has the lock fills; here it gives up, and it is our turn."""
    layer = image.layers[0]
    path = lock_path(layer, tmp_path / "cache" / "partial")
    other = await asyncio.to_thread(try_lock, path)
    assert other is not None
    asking = asyncio.ensure_future(get(mirror.address, path_of(layer)))
    while mirror.service.cache._blobs._flights.get(layer) is None:  # noqa: ASYNC110  # nothing else tells
        await asyncio.sleep(0)
    assert hub.requests("GET", layer) == 0
    await asyncio.to_thread(os.close, other)
    assert (await asking).body == SMALL
