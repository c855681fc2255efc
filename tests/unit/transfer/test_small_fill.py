"""Small fills: one request for all clients, whole or not at all."""

import asyncio
import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.lock import lock_path, try_lock
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Wire, get

SMALL = b"a small layer"
X = Repository("docker.io", "library/x")


@pytest.fixture
async def image(hub: FakeRegistry, mirror: Running) -> FakeImage:
    """An image whose manifest is known to the mirror, and whose blobs are not."""
    image = hub.add_image("library/x", "t", [SMALL])
    await get(mirror.address, "/v2/library/x/manifests/t")
    return image


def path_of(digest: Digest) -> str:
    return f"/v2/docker.io/library/x/blobs/{digest}"


async def test_small_fill_arrives_whole_and_is_stored(
    hub: FakeRegistry, mirror: Running, image: FakeImage
) -> None:
    """One request to the upstream; then the blob comes from memory, and from the disk after that."""
    layer = image.layers[0]
    assert (await get(mirror.address, path_of(layer))).body == SMALL
    assert (await get(mirror.address, path_of(layer))).body == SMALL
    await mirror.landed(layer)
    mirror.service._store._memory._contents.drop((X, layer))
    assert (await get(mirror.address, path_of(layer), "Range: bytes=2-6")).body == b"small"
    assert (hub.requests("GET", layer), hub.requests("HEAD", layer)) == (1, 0)
    assert await mirror.service._store.upkeep.check() == []


async def test_small_fill_serves_many_clients_with_one_request(
    hub: FakeRegistry, mirror: Running, image: FakeImage
) -> None:
    """All clients get the same bytes; none depends on the first client, which leaves."""
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


async def test_small_fill_retries_wrong_bytes(hub: FakeRegistry, mirror: Running, image: FakeImage) -> None:
    """No client has received any of the wrong bytes, so none notices."""
    layer = image.layers[0]
    hub.fault(Fault(data=b"A small layer"), layer, "GET")
    assert (await get(mirror.address, path_of(layer))).body == SMALL
    assert await mirror.metric('registry_mirror_fill_failures_total{reason="digest"}') == 1


@pytest.mark.parametrize("data", [b"A small layer", SMALL + b"!", SMALL[:-1], b""])
async def test_small_fill_never_serves_wrong_bytes(
    hub: FakeRegistry, mirror: Running, image: FakeImage, data: bytes
) -> None:
    """Twice wrong is an error, and nothing is kept."""
    layer = image.layers[0]
    for _ in range(2):
        hub.fault(Fault(data=data), layer, "GET")
    reply = await get(mirror.address, path_of(layer))
    assert (reply.status, SMALL in reply.body) == (502, False)
    assert not (await mirror.service._store.content.look_up(X, layer)).present
    assert (await get(mirror.address, path_of(layer))).body == SMALL


async def test_small_fill_of_a_size_other_than_the_manifests(
    hub: FakeRegistry, mirror: Running, image: FakeImage
) -> None:
    """The size in a manifest is a claim: the digest decides."""
    layer = image.layers[0]
    link = (await mirror.service._store.content.look_up(X, layer)).link
    assert link is not None
    await mirror.service._store.metadata.links.add(X, layer, type(link)(size=len(SMALL) + 1))
    reply = await get(mirror.address, path_of(layer))
    assert (reply.status, reply.body) == (200, SMALL)
    await mirror.settled()
    known = (await mirror.service._store.content.look_up(X, layer)).link
    assert known is not None
    assert known.size == len(SMALL)


async def test_small_fill_that_fails_releases_the_lock(
    hub: FakeRegistry, mirror: Running, image: FakeImage
) -> None:
    """The client gets an error, and the next request can fill."""
    layer = image.layers[0]
    hub.fault(Fault(status=503), layer, "GET")
    assert (await get(mirror.address, path_of(layer))).status == 424
    assert (await get(mirror.address, path_of(layer))).body == SMALL


async def test_small_fill_is_passed_through_when_the_disk_fails(
    hub: FakeRegistry, mirror: Running, image: FakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has the blob (invariant 12), which is stored once the disk works again."""
    layer = image.layers[0]
    store = mirror.service._store

    async def full(*_: object) -> None:
        raise StoreError("keep: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(store.transfers._writes, "do", full)
        assert (await get(mirror.address, path_of(layer))).body == SMALL
        await mirror.landed(layer)
    assert (await get(mirror.address, path_of(layer))).body == SMALL


async def test_small_fill_waits_for_the_lock_of_another_process(
    hub: FakeRegistry, mirror: Running, image: FakeImage, tmp_path: Path
) -> None:
    """The process with the lock fills; here it gives up, and this process fills."""
    layer = image.layers[0]
    path = lock_path(layer, tmp_path / "cache" / "partial")
    other = await asyncio.to_thread(try_lock, path)
    assert other is not None
    asking = asyncio.ensure_future(get(mirror.address, path_of(layer)))
    while mirror.service.cache._blobs._flights.get(layer) is None:  # noqa: ASYNC110  # no event to wait for
        await asyncio.sleep(0)
    assert hub.requests("GET", layer) == 0
    await asyncio.to_thread(os.close, other)
    assert (await asking).body == SMALL


async def test_small_fill_that_is_cancelled_while_it_writes_its_link_releases_its_lease(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """Later fills of the blob wait for the lease, in all processes."""
    image = hub.add_image("library/x", "t", [SMALL])
    account = {"username": "u", "password": "p", "private": "everybody"}
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, upstream=account)
    async with serving(config) as mirror:
        await get(mirror.address, "/v2/library/x/manifests/t")
        layer, folder = image.layers[0], mirror.service._store.folder
        database = folder.index.database.folder / "cache.db"
        connect = partial(sqlite3.connect, database, isolation_level=None, check_same_thread=False)
        with closing(await asyncio.to_thread(connect)) as writer:
            await asyncio.to_thread(writer.execute, "BEGIN IMMEDIATE")  # the link waits
            assert (await get(mirror.address, path_of(layer))).body == SMALL
            flight = mirror.service.cache._blobs._flights.get(layer)
            assert flight is not None
            assert flight.task is not None
            flight.task.cancel()
            await flight.wait_done()
            await asyncio.to_thread(writer.execute, "ROLLBACK")
        lease = await mirror.service._store.transfers.leases.acquire_blob(layer)
        assert lease is not None
        await mirror.service._store.transfers.leases.release(lease)
