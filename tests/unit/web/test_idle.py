"""Connections that are looked at beside the event loop."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from mirror.web.idle import HEAD, Idle
from tests.unit.web.test_replay import Full, running


class Seen:
    """A watched connection, and what came there."""

    def __init__(self, idle: Idle) -> None:
        self.here, self.there = socket.socketpair()
        for each in (self.here, self.there):
            each.setblocking(False)
        self.idle = idle
        self.data: asyncio.Queue[bytes] = asyncio.Queue()
        idle.watch(self.here.fileno(), self)

    def arrived(self, data: bytes) -> None:
        if not data:
            self.leave()
        self.data.put_nowait(data)

    def leave(self) -> None:
        self.idle.leave(self.here.fileno())

    def close(self) -> None:
        self.here.close()
        self.there.close()


@pytest.fixture
async def idle() -> Idle:
    return Idle(asyncio.get_running_loop())


@pytest.fixture
async def two(idle: Idle) -> AsyncIterator[tuple[Seen, Seen]]:
    one, other = Seen(idle), Seen(idle)
    yield one, other
    idle.close()
    one.close()
    other.close()


async def test_each_has_what_came_to_it(two: tuple[Seen, Seen]) -> None:
    """As it came, as much as one read has; nothing at the end."""
    one, other = two
    one.there.send(b"a")
    other.there.send(b"b" * (HEAD + 1))
    assert await one.data.get() == b"a"
    assert [len(await other.data.get()) for _ in range(2)] == [HEAD, 1]
    other.there.close()
    assert await other.data.get() == b""


async def test_who_has_left_is_not_read(two: tuple[Seen, Seen]) -> None:
    """Nor one that left while another one was read, in the same look; leaving twice does no harm."""
    one, other = two
    one.leave()
    one.leave()
    one.there.send(b"a")
    other.there.send(b"b")
    assert await other.data.get() == b"b"
    assert one.data.empty()
    assert one.here.recv(9) == b"a"


async def test_a_broken_connection_is_at_its_end() -> None:
    """With a reset instead of an end."""
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=4)
        wire.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        wire.writer.close()
        await asyncio.wait_for(full.server.deserted.wait(), 10)


async def test_a_client_that_leaves_is_let_go() -> None:
    """Though the loop does not read from it."""
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=4)
        wire.writer.close()
        await asyncio.wait_for(full.server.deserted.wait(), 10)


async def test_known_and_unknown_by_turns() -> None:
    """Each goes its way, and nothing is lost in between."""
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=3)
        for number in range(5):
            assert await full.ask(wire, f"X-Number: {number}") == [b"content"]
            assert await full.ask(wire, times=2) == [b"content"] * 2
        assert full.gone == 2 + 5


async def test_it_ends_with_the_server() -> None:
    """A connection that is watched is closed like any other, once what was asked has been answered."""
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=4)
        await full.server.shutdown(1.0)
        assert await wire.reader.read() == b""
        await asyncio.wait_for(full.server.deserted.wait(), 5)


async def test_nothing_is_asked_for_long() -> None:
    """A connection that is watched is closed when its time is over."""
    full = Full()
    async with running(full, keepalive_timeout=0.2) as wire:
        await full.ask(wire, times=4)
        assert await asyncio.wait_for(wire.reader.read(), 10) == b""
