"""Departures: a request of a client that has left is not read in a crowd."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from mirror.web.departures import CROWD, CROWD_SECONDS, Departures

REQUEST = b"GET /v2/library/x/manifests/t HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamWriter, asyncio.Transport]]:
    """Yield a client's side of a connection, and the transport of the other side, which reads nothing."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        _, client = await asyncio.open_connection(*server.getsockname())
        accepted, _ = await loop.sock_accept(server)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=accepted)
        transport.pause_reading()
        try:
            yield client, transport
        finally:
            client.close()
            transport.abort()


class Clock:
    """Seconds, which a test moves."""

    now = 1e6

    def __call__(self) -> float:
        return self.now


def crowded(connections: int = CROWD) -> tuple[Departures, Clock]:
    """Return the departures of a process to which so many connections have just come."""
    clock = Clock()
    departures = Departures(clock)
    for _ in range(connections):
        departures.note_connection()
    return departures, clock


@pytest.mark.parametrize("ends", ["close", "write_eof"])
async def test_departure_is_seen_behind_what_is_unread(ends: str) -> None:
    """The end of the connection is known before the request in front of it is read."""
    departures, _ = crowded()
    async with connected() as (client, transport):
        client.write(REQUEST)
        assert not departures.is_unread(REQUEST, transport)
        with capture_logs() as lines:
            getattr(client, ends)()
            await asyncio.sleep(0)  # asyncio closes a socket in the next turn of its loop
            assert departures.is_unread(REQUEST, transport)
            assert departures.is_unread(REQUEST, transport)
        assert [line["requests"] for line in lines] == [1]


async def test_departure_counts_in_a_crowd_and_for_the_api_alone() -> None:
    """A simple program that ends its direction gets its answer in quiet, and that to a probe always."""
    async with connected() as (client, transport):
        client.write_eof()
        assert not crowded(CROWD - 1)[0].is_unread(REQUEST, transport)
        assert not crowded()[0].is_unread(b"GET /healthz HTTP/1.0\r\n\r\n", transport)
        assert crowded()[0].is_unread(REQUEST, transport)


async def test_crowd_ends_with_its_time() -> None:
    """Connections count for as long as they come, and for the time after it."""
    async with connected() as (client, transport):
        client.write_eof()
        departures, clock = crowded()
        seen = []
        for _ in range(3):
            seen.append(departures.is_unread(REQUEST, transport))
            clock.now += CROWD_SECONDS
        assert seen == [True, True, False]
        clock.now += 100 * CROWD_SECONDS
        departures.note_connection()
        assert not departures.is_unread(REQUEST, transport)


@pytest.mark.parametrize(
    ("sent", "connections", "departed"),
    [
        (REQUEST, CROWD, True),
        (REQUEST, CROWD - 1, False),
        (b"GET /healthz HTTP/1.0\r\n\r\n", CROWD, False),
        (b"\x16\x03\x01\x02\x00\x01", CROWD, False),  # TLS
        (b"", CROWD, False),
    ],
    ids=["request", "quiet", "probe", "tls", "nothing"],
)
def test_departed_connection_is_seen_at_accept(sent: bytes, connections: int, departed: bool) -> None:
    """A connection is closed unread by the same rules, and counts for the crowd."""
    departures, _ = crowded(connections)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(sent)
            with server.accept()[0] as staying:
                assert not departures.is_departed(staying)
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(sent)
        with server.accept()[0] as left:
            assert departures.is_departed(left) is departed
    assert departures._came == connections + departed
