"""Departures: a request of a client that has left is not read in a crowd."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from mirror.web.departures import CROWD, Departures

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


@pytest.mark.parametrize("ends", ["close", "write_eof"])
async def test_departure_is_seen_behind_what_is_unread(ends: str) -> None:
    """The end of the connection is known before the request in front of it is read."""
    departures = Departures(lambda: CROWD)
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
        assert not Departures(lambda: CROWD - 1).is_unread(REQUEST, transport)
        assert not Departures(lambda: CROWD).is_unread(b"GET /healthz HTTP/1.0\r\n\r\n", transport)
        assert Departures(lambda: CROWD).is_unread(REQUEST, transport)
