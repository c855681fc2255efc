"""Connections to upstreams that send more than they announced."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.upstream.errors import UpstreamError
from mirror.upstream.http.connections import without_length
from mirror.upstream.http.transport import Transport
from tests.fakes.tls import Authority
from tests.fakes.upstream import settings

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
LARGE = 3 * 1024 * 1024
# What may follow a chunk, and is none.
BROKEN = [
    b"zz\r\n{}\r\n0\r\n\r\n",
    b"-1\r\n{}",
    b"f" * 18 + b"\r\n{}",
    b"0\r\nTrailer" + b"x" * 10_000 + b"\r\n\r\n",
]


def answer(body: bytes, surplus: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b%b" % (len(body), body, surplus)


class Raw:
    """A server that answers `/x` with what `answers["/x"]` says, other paths with their own name."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, bytes] = {}
        self.connections: list[asyncio.StreamWriter] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split()[1].decode()
                writer.write(self.answers.get(path, answer(path.encode())))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    raw = Raw()
    server = await asyncio.start_server(raw.handle, "127.0.0.1", 0, ssl=tls)
    raw.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()


@pytest.fixture(params=["http", "https"])
async def raw(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Raw, Transport]]:
    authority = await asyncio.to_thread(Authority, tmp_path) if request.param == "https" else None
    async with serving(authority.server_context() if authority else None) as server:
        values = {"ca_file": authority.ca_file} if authority else {}
        transport = Transport(await asyncio.to_thread(settings_at, server.url, values), Metrics())
        yield server, transport
        await transport.close()


def settings_at(url: str, values: dict[str, Path]) -> UpstreamSettings:
    return settings(url, **values)


async def get(transport: Transport, path: str, method: str = "GET", *, proven: bool = False) -> bytes:
    response = await transport.send(method, URL(f"{transport.url}{path}"), {}, proven=proven)
    try:
        return await transport.read(response, 2 * LARGE)
    finally:
        response.close()


async def test_connection_is_used_again(raw: tuple[Raw, Transport]) -> None:
    """Answers that end where they said leave the connection to the next request."""
    server, transport = raw
    for path in ("/a", "/b", "/c"):
        assert await get(transport, path) == path.encode()
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    "surplus", [FORGED, FORGED * 2, b"x", b"HTTP/1.1 200", FORGED[:-1], b"\r\n" + FORGED]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_surplus_with_the_answer_is_no_other_answer(
    raw: tuple[Raw, Transport], surplus: bytes, method: str
) -> None:
    """Bytes after an answer, in the same segment, answer nothing; the answer itself may be refused."""
    server, transport = raw
    server.answers["/a"] = answer(b"" if method == "HEAD" else b"right", surplus)
    with contextlib.suppress(UpstreamError):
        assert await get(transport, "/a", method) in (b"right", b"")
    for path in ("/b", "/c"):
        assert await get(transport, path) == path.encode()


@pytest.mark.parametrize("wrong", BROKEN, ids=["size", "negative", "too large", "trailer"])
async def test_chunk_that_is_broken_ends_the_body(raw: tuple[Raw, Transport], wrong: bytes) -> None:
    """A reader that waits for the body has an error as soon as the chunk has come."""
    server, transport = raw
    server.answers["/a"] = b"HTTP/1.1 404 N\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    response = await transport.send("GET", URL(f"{transport.url}/a"), {})
    server.connections[0].write(wrong)
    with contextlib.closing(response), pytest.raises(UpstreamError):
        async with asyncio.timeout(60):  # far more than it takes
            await transport.read(response, LARGE)
    assert await get(transport, "/b") == b"/b"


@pytest.mark.parametrize("surplus", [FORGED, FORGED * 2, b"x", b"HTTP/1.1 200", FORGED[:-1]])
async def test_surplus_on_an_idle_connection_is_no_answer(raw: tuple[Raw, Transport], surplus: bytes) -> None:
    """Bytes that come while nothing is asked end the connection, even before the loop has read them."""
    server, transport = raw
    assert await get(transport, "/a") == b"/a"
    server.connections[0].write(surplus)  # on loopback they have arrived when this returns
    assert await get(transport, "/b") == b"/b"
    assert await get(transport, "/c") == b"/c"
    assert len(server.connections) == 2


async def test_surplus_in_two_pieces_is_no_answer(raw: tuple[Raw, Transport]) -> None:
    """The beginning came with the answer, the rest while nothing is asked."""
    server, transport = raw
    server.answers["/a"] = answer(b"right", FORGED[:9])
    assert await get(transport, "/a") == b"right"
    server.connections[0].write(FORGED[9:] + FORGED)
    assert await get(transport, "/b") == b"/b"


async def test_end_of_an_idle_connection_fails_no_request(raw: tuple[Raw, Transport]) -> None:
    """A connection that the server has closed meanwhile is not used: the request needs no retry."""
    server, transport = raw
    assert await get(transport, "/a") == b"/a"
    server.connections[0].transport.abort()
    assert await get(transport, "/b") == b"/b"


async def test_bodies_and_tags_have_connections_of_their_own(raw: tuple[Raw, Transport]) -> None:
    """Blobs, which a digest proves, never share a connection with tags and tokens."""
    server, transport = raw
    for _ in range(3):
        assert await get(transport, "/blob", proven=True) == b"/blob"
        assert await get(transport, "/tag") == b"/tag"
    assert len(server.connections) == 2


async def test_surplus_of_a_body_read_from_the_socket(raw: tuple[Raw, Transport]) -> None:
    """A large body goes past aiohttp's parser; what follows it ends the connection all the same."""
    server, transport = raw
    server.answers["/a"] = answer(b"x" * LARGE, FORGED)
    response = await transport.send("GET", URL(f"{transport.url}/a"), {})
    parts = transport.direct_reader(response)
    assert parts is not None
    received = 0
    while got := await parts():
        received += sum(len(part) for part in got)
    response.close()
    assert received == LARGE
    assert await get(transport, "/b") == b"/b"
    assert await get(transport, "/c") == b"/c"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX: y\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("body", [b"", b"4\r\nbody\r\n0\r\n\r\n", b"Content-Length: 9\r\n\r\n"])
def test_length_beside_chunks_is_removed(body: bytes) -> None:
    """Only that header, wherever it is, and nothing of the body."""
    plain = b"HTTP/1.1 200 OK\r\nX: y\r\n" + CHUNKS + b"\r\n" + body
    assert without_length(HEAD + CHUNKS + b"\r\n" + body) == plain
    swapped = b"HTTP/1.1 200 OK\r\n" + CHUNKS.lower() + b"content-length:7\r\n\r\n" + body
    assert without_length(swapped) == b"HTTP/1.1 200 OK\r\n" + CHUNKS.lower() + b"\r\n" + body
    bare = (HEAD + CHUNKS + b"\r\n").replace(b"\r", b"")
    assert (
        without_length(bare + body) == b"HTTP/1.1 200 OK\nX: y\n" + CHUNKS.replace(b"\r", b"") + b"\n" + body
    )


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"\r\n" + CHUNKS,
        HEAD + CHUNKS,
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + CHUNKS + b"\r\n4\r\nbody",
        b"",
    ],
)
def test_length_without_chunks_stays(data: bytes) -> None:
    assert without_length(data) == data


async def test_length_beside_chunks_ends_the_connection(raw: tuple[Raw, Transport]) -> None:
    """Intermediaries may disagree about its end: no other request is sent there."""
    server, transport = raw
    server.answers["/a"] = HEAD + CHUNKS + b"\r\n4\r\nbody\r\n0\r\n\r\n"
    assert await get(transport, "/a") == b"body"
    assert await get(transport, "/b") == b"/b"
    assert len(server.connections) == 2
