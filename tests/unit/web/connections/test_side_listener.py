"""Side listeners: silent connections, unread answers, and the share of one address."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from mirror.system.sockets import bind_all, format_address
from mirror.web.connections.side_listener import SideBounds, SideListener, send_events
from tests.wire import Wire

# Seconds that nothing here takes.
LONG = 3600.0


class Answers:
    """Answers of a listener: a short one at /, and streams without an end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.running = asyncio.Semaphore(0)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/":
            return web.Response(text="ok")
        response = web.StreamResponse()
        await response.prepare(request)
        self.running.release()
        try:
            if request.path == "/events":
                send_events(request)
            while True:
                await response.write(bytes(16 * 1024))
                await request.writer.drain()
        finally:
            self.ended.set()


@asynccontextmanager
async def listening(bounds: SideBounds) -> AsyncIterator[tuple[str, Answers]]:
    answers, sockets = Answers(), bind_all(["127.0.0.1:0"])
    listener = SideListener(answers, bounds)
    await listener.start(sockets)
    try:
        async with asyncio.timeout(60):
            yield format_address(sockets[0]), answers
    finally:
        await listener.close()
        await listener.close()


async def ask(wire: Wire) -> bytes:
    wire.send("GET", "/")
    return (await wire.reply()).body


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nX: "])
async def test_silent_connection_ends(begun: bytes) -> None:
    """A head comes in time, or the connection is closed, for all that trickles."""
    async with (
        listening(SideBounds(4, head=0.05, unread=LONG)) as (address, _),
        await Wire.open(address) as wire,
    ):
        wire.writer.write(begun)
        assert await wire.reader.read() == b""


async def test_connection_that_asks_in_time_is_kept() -> None:
    """The limit of the first head is none of the requests that follow."""
    async with (
        listening(SideBounds(4, head=LONG, unread=LONG)) as (address, _),
        await Wire.open(address) as wire,
    ):
        assert await ask(wire) == b"ok"
        assert await ask(wire) == b"ok"


@pytest.mark.parametrize(
    ("path", "bounds"),
    [
        ("/long", SideBounds(4, head=LONG, unread=0.05, events=LONG)),
        ("/events", SideBounds(4, head=LONG, unread=LONG, events=0.05)),
    ],
)
async def test_answer_that_nobody_reads_ends(path: str, bounds: SideBounds) -> None:
    """The handler ends, too."""
    async with listening(bounds) as (address, answers), await Wire.open(address) as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.send("GET", path)
        await answers.ended.wait()


async def test_idle_connections_make_room() -> None:
    """Silent connections do not shut anybody out: the one idle longest goes."""
    async with AsyncExitStack() as stack:
        address, _ = await stack.enter_async_context(listening(SideBounds(3, head=LONG, unread=LONG)))
        silent = [await stack.enter_async_context(await Wire.open(address)) for _ in range(3)]
        for _ in range(5):
            wire = await stack.enter_async_context(await Wire.open(address))
            assert await ask(wire) == b"ok"
        for each in silent:
            assert await each.reader.read() == b""


async def test_address_has_a_share() -> None:
    """One address fills its share with streams, gets no more, and takes no place of another."""
    bounds = SideBounds(12, head=LONG, unread=LONG)
    assert bounds.share == 8
    async with AsyncExitStack() as stack:
        address, answers = await stack.enter_async_context(listening(bounds))
        for _ in range(bounds.share):
            wire = await stack.enter_async_context(await Wire.open(address, client="127.0.0.2"))
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            wire.send("GET", "/long")
            await answers.running.acquire()
        refused = await stack.enter_async_context(await Wire.open(address, client="127.0.0.2"))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(refused)
        other = await stack.enter_async_context(await Wire.open(address))
        assert await ask(other) == b"ok"


@pytest.mark.parametrize(("connections", "share"), [(4, 4), (8, 8), (64, 16), (256, 64), (1024, 256)])
def test_share_is_a_quarter_and_no_less_than_eight(connections: int, share: int) -> None:
    """A small listener is for anybody."""
    assert SideBounds(connections).share == share


async def test_send_events_is_nothing_elsewhere() -> None:
    """A server of another kind has no such limits."""
    ended = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        send_events(request)
        ended.set()
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with asyncio.timeout(60), await Wire.open(f"{host}:{port}") as wire:
        wire.send("GET", "/")
        await ended.wait()
    await runner.cleanup()
