"""Clients that take next to nothing keep no blobs beyond the quota."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.fakes.content import image_manifest
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Wire, get, request_head

pytestmark = pytest.mark.slow

# More than the buffers of a connection on loopback take.
SIZE = 16 * 1024 * 1024
READERS = 4

# Nearly the longest manifest that is taken.
LONG = 4_000_000


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture(autouse=True)
def _short_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.web.pace.PACE_SECONDS", 0.05)


@asynccontextmanager
async def limited(hub: FakeRegistry, folder: Path, quota: int) -> AsyncIterator[Running]:
    config = configured(folder / "cache", {"docker.io": hub.url})
    cache = config.cache.model_copy(update={"max_size": Amount(quota)})
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        yield mirror


def blobs(hub: FakeRegistry) -> list[Digest]:
    data = random.Random(1).randbytes(SIZE)
    return [hub.add_blob("library/x", bytes([number]) + data[1:]) for number in range(READERS)]


def url(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


async def slow_reader(mirror: Running, path: str) -> Wire:
    """Make a request, and read nothing but the head of the response."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
    connection.setblocking(False)
    host, _, port = mirror.address.rpartition(":")
    await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 16)
    wire = Wire(reader, writer)
    wire.writer.write(request_head("GET", path))
    assert (await wire.head()).status == 200
    return wire


async def rest(wire: Wire) -> int:
    """Read the body, or to the end of the connection; return the number of bytes."""
    count = 0
    while count < SIZE and (piece := await wire.reader.read(1 << 20)):
        count += len(piece)
    return count


async def is_crowded(mirror: Running) -> bool:
    """Return whether there is more than the quota has room for, stored or being read."""
    store = mirror.service._store
    return (await store.upkeep.stats())[0] > 2 * SIZE or store._last_use.reading.total() > 2


@pytest.mark.parametrize("stored", [True, False])
async def test_slow_readers_keep_no_blobs_beyond_the_quota(
    hub: FakeRegistry, tmp_path: Path, stored: bool
) -> None:
    """Blobs that are read slowly, stored or while they come, stay only as far as there is room for them."""
    async with limited(hub, tmp_path, 2 * SIZE + 100_000) as mirror, AsyncExitStack() as stack:
        wires = []
        for digest in blobs(hub):
            if stored:
                assert len((await get(mirror.address, url(digest))).body) == SIZE
                await mirror.landed(digest)
            wires.append(await stack.enter_async_context(await slow_reader(mirror, url(digest))))
        store, flights = mirror.service._store, mirror.service.cache._blobs._flights
        async with asyncio.timeout(30):
            # A fill that has not ended yet counts nowhere: without it the first look would find all in order.
            while flights.running() or await is_crowded(mirror):
                await store.upkeep.run_housekeeping()
        received = [await rest(wire) for wire in wires]
        assert sum(count == SIZE for count in received) <= 2
        # The rest of those that were ended is there for the client that asks for it.
        for digest, count in zip(blobs(hub), received, strict=True):
            reply = await get(mirror.address, url(digest), f"Range: bytes={count - 1}-")
            assert (reply.status, len(reply.body)) == (206, SIZE - count + 1)


async def test_slow_readers_are_served_while_there_is_room(hub: FakeRegistry, tmp_path: Path) -> None:
    """A client may be as slow as it likes as long as its blob is in no other's way."""
    async with limited(hub, tmp_path, READERS * SIZE + 100_000) as mirror, AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(await slow_reader(mirror, url(digest))) for digest in blobs(hub)
        ]
        until = asyncio.get_running_loop().time() + 0.5  # ten looks at each
        while asyncio.get_running_loop().time() < until:
            await get(mirror.address, "/healthz")
        assert [await rest(wire) for wire in wires] == [SIZE] * READERS


async def test_slow_reader_that_is_fast_enough_is_served_without_room(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client above the least rate gets its blob whole, though the cache is over its quota."""
    monkeypatch.setattr("mirror.web.pace.LEAST_RATE", 0)
    async with limited(hub, tmp_path, SIZE + 100_000) as mirror, AsyncExitStack() as stack:
        wires = []
        for digest in blobs(hub)[:2]:
            assert len((await get(mirror.address, url(digest))).body) == SIZE
            await mirror.landed(digest)
            wires.append(await stack.enter_async_context(await slow_reader(mirror, url(digest))))
        until = asyncio.get_running_loop().time() + 0.3
        while asyncio.get_running_loop().time() < until:
            await get(mirror.address, "/healthz")
        assert [await rest(wire) for wire in wires] == [SIZE] * 2


@asynccontextmanager
async def passing(hub: FakeRegistry, folder: Path) -> AsyncIterator[Running]:
    """Yield a mirror that passes all blobs through, over one connection."""
    config = configured(folder / "cache", {"docker.io": hub.url}, upstream={"max_connections": 2})
    cache = config.cache.model_copy(update={"max_size": Amount(SIZE // 2)})
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        yield mirror


async def test_slow_reader_of_pass_through_gives_way_to_others(hub: FakeRegistry, tmp_path: Path) -> None:
    """A client that takes nothing loses its connection to the upstream once another one waits for it."""
    async with passing(hub, tmp_path) as mirror, AsyncExitStack() as stack:
        slow, other, *_ = blobs(hub)
        wire = await stack.enter_async_context(await slow_reader(mirror, url(slow)))
        reply = await get(mirror.address, url(other))
        assert (reply.status, len(reply.body)) == (200, SIZE)
        assert await rest(wire) < SIZE


async def test_slow_reader_of_pass_through_is_served_while_no_other_waits(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """A client may be as slow as it likes while no other waits for its connection to the upstream."""
    async with passing(hub, tmp_path) as mirror, AsyncExitStack() as stack:
        wire = await stack.enter_async_context(await slow_reader(mirror, url(blobs(hub)[0])))
        until = asyncio.get_running_loop().time() + 0.3  # six looks
        while asyncio.get_running_loop().time() < until:
            await get(mirror.address, "/healthz")
        assert await rest(wire) == SIZE


async def test_slow_readers_of_long_answers_give_way_to_others(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that take nothing of their manifests hold no more memory than all may; remembered or not."""
    monkeypatch.setattr("mirror.web.connections.large_answers.MOST", 2 * LONG)
    data = image_manifest(b"{}", []) + b" " * LONG
    path = f"/v2/library/x/manifests/{hub.add_manifest('library/x', data, OCI_MANIFEST)}"
    # More than the buffers of a connection take.
    more = request_head("GET", path) * 3 + request_head("GET", path, ("Connection: close",))
    async with limited(hub, tmp_path, SIZE) as mirror, AsyncExitStack() as stack, asyncio.timeout(30):
        for _ in range(3):
            assert (await get(mirror.address, path)).body == data
        with capture_logs() as lines:
            wires = [await stack.enter_async_context(await slow_reader(mirror, path)) for _ in range(3)]
            for wire in wires:
                wire.writer.write(more)
            while not any("long answers" in line["event"] for line in lines):
                await get(mirror.address, "/healthz")
        assert (await get(mirror.address, path)).body == data
        received = await asyncio.gather(*map(everything, wires))
        assert min(received) < 5 * len(data)


async def everything(wire: Wire) -> int:
    """Read to the end of the connection, however it ends; return the number of bytes."""
    count = 0
    with suppress(ConnectionError):
        while piece := await wire.reader.read(1 << 20):
            count += len(piece)
    return count
