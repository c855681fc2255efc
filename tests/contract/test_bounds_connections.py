"""Bounds of connections: how many there may be, which ones end first, and life without free descriptors."""

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.store.health import Capability
from mirror.system import admission
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.running import Running, mirror_of
from tests.wire import Wire, get

LIMIT = 16


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache", server={"connections": LIMIT}) as mirror:
        yield mirror


async def ask(wire: Wire) -> int:
    wire.send("GET", "/v2/")
    return (await wire.reply()).status


async def ended(wire: Wire) -> bool:
    """Wait until the mirror has closed the connection."""
    return await asyncio.wait_for(wire.reader.read(), 10) == b""


async def test_connection_idle_longest_makes_room(mirror: Running) -> None:
    """At the limit a new client gets its answer, and the one that was silent for longest is closed."""
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(await Wire.open(mirror.address)) for _ in range(LIMIT)]
        for wire in [*idle, idle[0], idle[2]]:  # idle[1] is the one idle longest, then idle[3]
            assert await ask(wire) == 200
        with capture_logs() as lines:
            for _ in range(2):
                wire = await stack.enter_async_context(await Wire.open(mirror.address))
                assert await ask(wire) == 200
        assert await ended(idle[1])
        assert await ended(idle[3])
        assert [await ask(idle[0]), await ask(idle[2]), await ask(idle[-1])] == [200] * 3
    assert len([line for line in lines if line["log_level"] == "warning"]) == 1


@pytest.mark.parametrize("sent", [b"", b"GET /v2/ HTTP/1.1\r\nHost: x"], ids=["silent", "half a head"])
async def test_flood_of_silent_connections_stops_no_client(mirror: Running, sent: bytes) -> None:
    """However many connections one client opens, another is answered; the flood has LIMIT of them at most."""
    async with AsyncExitStack() as stack:
        flood = []
        for _ in range(10 * LIMIT):
            wire = await stack.enter_async_context(await Wire.open(mirror.address))
            wire.writer.write(sent)
            flood.append(wire)
        assert (await get(mirror.address, "/v2/")).status == 200
        for wire in flood[:-LIMIT]:
            assert await ended(wire)


async def test_busy_connections_are_not_closed(mirror: Running, fake: FakeRegistry) -> None:
    """A new client is closed at once when all others are busy, and goes elsewhere; they get their answers."""
    image = fake.add_image("library/x", "t", [b"layer"])
    gate = fake.hold("/manifests/", after=-1, method="GET")
    async with AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(await Wire.open(mirror.address)) for _ in range(LIMIT)]
        for wire in busy:
            wire.send("GET", "/v2/library/x/manifests/t")
        await gate.reached.wait()
        await _refused(mirror)
        gate.release()
        for wire in busy:
            assert (await wire.reply()).body == image.manifest_data
        assert await ask(busy[0]) == 200


async def _refused(mirror: Running) -> None:
    """Connect until the mirror closes a new connection without an answer."""
    for _ in range(LIMIT):
        try:
            await get(mirror.address, "/healthz")
        except (ConnectionError, asyncio.IncompleteReadError):
            return
    raise AssertionError("every connection was answered")


async def test_unfinished_handshake_makes_room(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that never begin with TLS are closed for a client that does."""
    monkeypatch.setattr(admission, "HANDSHAKE_SECONDS", 0.0)
    authority = await asyncio.to_thread(Authority, tmp_path)
    context = await asyncio.to_thread(authority.client_context)
    server = {
        "connections": LIMIT,
        "tls_certificate": authority.server_file,
        "tls_key": authority.server_file,
    }
    async with mirror_of(fake, tmp_path / "cache", server=server) as mirror, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await Wire.open(mirror.address)) for _ in range(LIMIT)]
        wire = await stack.enter_async_context(await Wire.open(mirror.address, context))
        assert await ask(wire) == 200
        assert await ended(silent[0])


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Lower this process's limit of open files to what it has open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_want_of_descriptors_is_one_line_and_no_fault(
    mirror: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback, no trouble with the cache folder; clients are served when there are some again."""
    loop = asyncio.get_running_loop()
    host, _, port = mirror.address.rpartition(":")
    await get(mirror.address, "/readyz")
    clients = [socket.socket() for _ in range(5)]
    stuck = asyncio.Event()
    with capture_logs() as lines:
        with no_descriptors():
            for client in clients:
                client.setblocking(False)
                await loop.sock_connect(client, (host, int(port)))
            loop.call_later(0.2, stuck.set)
            await stuck.wait()
            assert mirror.service.state.troubles() == []
        for client in clients:
            await loop.sock_sendall(client, b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await asyncio.wait_for(loop.sock_recv(client, 999), 10)
            client.close()
    errors = [line["event"] for line in lines if line["log_level"] == "error"]
    assert errors == ["no free descriptor for a client, connections idle longest are closed"]
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_want_of_descriptors_is_no_trouble_of_the_disk(mirror: Running) -> None:
    """Reads and writes of the cache fail meanwhile, and the cache is used again at once."""
    folder = mirror.service._store.folder
    executor = mirror.service._store.executor
    await executor.run(folder.recovery.drop_connections)
    with capture_logs() as lines, no_descriptors():
        for _ in range(3):
            await executor.run(folder.recovery.read_or, Capability.BLOBS, None, folder.blobs.stats)
            await executor.run(folder.recovery.read_or, Capability.METADATA, None, lambda: os.dup(0))
        assert mirror.service.state.troubles() == []
    assert [line["event"] for line in lines] == ["no free descriptor for the cache"]
