"""Acceptor: connections get their protocol behind the PROXY header, and none is left behind at the end."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mirror.access.rules import parse_network
from mirror.system.admission import Admission
from mirror.system.sockets import ListeningSocket, bind_all, format_address
from mirror.web.accept import acceptor
from mirror.web.accept.acceptor import Acceptor
from tests.wire import Wire

PROXIES = (parse_network("127.0.0.1"),)


class Greeter(asyncio.Protocol):
    """Writes the address of the client, and what it sends."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.transport.write(f"{transport.get_extra_info('peername')[0]} ".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


class Gate:
    """An acceptor on a free port."""

    def __init__(self, listener: ListeningSocket) -> None:
        self.address = format_address(listener)
        self.admission = listener.admission = Admission(100)
        self.refused: list[str] = []
        self.acceptor = Acceptor(Greeter, None, PROXIES, 8, self.refused.append)
        self.acceptor.listen(listener)

    async def until(self, connections: int) -> None:
        while self.acceptor.preparing() != connections:  # noqa: ASYNC110  # a count gives no event
            await asyncio.sleep(0.001)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate(bind_all(["127.0.0.1:0"])[0])
    yield gate
    await gate.acceptor.close()


async def test_protocol_sees_the_client_and_its_bytes(gate: Gate) -> None:
    """The address of the header from a listed proxy; another client has its own."""
    for sender, header, client in (
        ("127.0.0.1", b"PROXY TCP4 192.0.2.7 192.0.2.1 1 1\r\n", b"192.0.2.7"),
        ("127.0.0.2", b"", b"127.0.0.2"),
    ):
        async with await Wire.open(gate.address, client=sender) as wire:
            wire.writer.write(header + b"hello")
            assert await wire.reader.read() == client + b" hello"
    assert gate.acceptor.preparing() == 0


async def test_end_leaves_no_connection(gate: Gate) -> None:
    """A connection whose header has not come is closed, and counts no more; no new one is accepted."""
    async with await Wire.open(gate.address) as wire:
        await gate.until(1)
        gate.acceptor.stop()
        assert gate.acceptor.preparing() == 1
        await gate.acceptor.close()
        assert await wire.reader.read() == b""
    assert gate.admission.open == 0
    with pytest.raises(ConnectionError):
        await Wire.open(gate.address)


async def test_client_that_leaves_is_no_error(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged, with a reset or without; no task fails."""
    for reset in (False, True):
        wire = await Wire.open(gate.address)
        await gate.until(1)
        if reset:
            wire.reset()
        else:
            wire.writer.close()
        await gate.until(0)
    assert caplog.records == []


class Exhausted(ListeningSocket):
    """A listener without a free descriptor, the first time."""

    failures = 1

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_acceptor_tries_again_after_there_was_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause, in which the loop does not spin."""
    monkeypatch.setattr(acceptor, "EXHAUSTED_SECONDS", 0.01)
    listener = Exhausted(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    gate = Gate(listener)
    try:
        async with await Wire.open(gate.address, client="127.0.0.2") as wire:
            wire.writer.write(b"hello")
            assert await wire.reader.read() == b"127.0.0.2 hello"
    finally:
        await gate.acceptor.close()
    assert listener.failures == 0
