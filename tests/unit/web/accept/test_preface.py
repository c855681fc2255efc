"""PROXY headers on a socket: the header is taken, and nothing behind it."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from mirror.access.proxy_protocol import ProxiedClient, ProxyHeaderError
from mirror.util.tasks import Tasks
from mirror.web.accept.preface import ClientLeft, peek, read_header, refuse

LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection, of which the first does not block."""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    with here, there:
        yield here, there


async def test_header_is_taken_and_nothing_behind_it(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.send(LINE + b"GET /")
    assert await read_header(here) == ProxiedClient("192.0.2.7", 51234)
    assert here.recv(100) == b"GET /"


async def test_header_in_pieces_is_waited_for(
    pair: tuple[socket.socket, socket.socket], tasks: Tasks
) -> None:
    """Each piece is taken as it comes: a piece that stays in the socket would keep the loop awake."""
    here, there = pair
    reading = tasks.spawn(read_header(here), name="read")
    for piece in (LINE[:3], LINE[3:40], LINE[40:] + b"x"):
        there.send(piece)
        await asyncio.sleep(0.001)
    assert await reading == ProxiedClient("192.0.2.7", 51234)
    assert here.recv(100) == b"x"


async def test_end_within_a_header_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    """An end before the first byte is a client that left."""
    here, there = pair
    there.send(LINE[:10])
    there.shutdown(socket.SHUT_WR)
    with pytest.raises(ProxyHeaderError, match="ended within"):
        await read_header(here)
    with pytest.raises(ClientLeft):
        await read_header(here)


async def test_peek_leaves_the_bytes(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.send(b"\x16\x03")
    assert await peek(here) == b"\x16\x03"
    assert here.recv(100) == b"\x16\x03"


async def test_refusal_is_no_answer_to_tls(pair: tuple[socket.socket, socket.socket]) -> None:
    """A client that speaks TLS sees the end of the connection alone."""
    here, there = pair
    there.send(b"\x16\x03\x01")
    refuse(here, "why")
    assert there.recv(100) == b""
    assert here.fileno() == -1


async def test_refusal_says_why(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.send(b"GET / HTTP/1.1\r\n\r\n")
    refuse(here, "why")
    answer = there.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\nContent-Length: 4\r\n\r\nwhy\n")
