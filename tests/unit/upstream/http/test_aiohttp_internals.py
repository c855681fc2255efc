"""The client of the installed aiohttp, with each of its parsers: what the mirror's connections rely on."""

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_parser import HttpResponseParserPy

from mirror.upstream.http.aiohttp_internals import (
    AiohttpConnector,
    AiohttpHandler,
    AiohttpResponse,
    BorrowedSocket,
    Connection,
    limit_body,
    peer_of,
    unread,
)

# Time, in seconds, for anything to happen: long enough for a busy machine.
PATIENCE = 30

LARGE = 1024 * 1024


def answer(length: int, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, body)


class Handler(AiohttpHandler):
    """A handler that notes what aiohttp and the transport call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.heads: list[int] = []
        self.requests = 0

    def set_response_params(self, **params: Any) -> None:
        self.requests += 1
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        self.heads.append(data[0].code)
        super().feed_data(data, size)


class Answer(AiohttpResponse):
    """An answer that keeps what its head was read from."""

    read_from: Connection
    peer: tuple[Any, ...] | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        self.read_from, self.peer = connection, peer_of(connection)
        return await super().start(connection)


class Scene:
    """A session of the client, and the server's side of its one connection."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.answers: list[Answer] = []
        self.server: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self.server = asyncio.get_running_loop().create_future()

    async def ask(self, reply: bytes) -> Answer:
        """Send a request, have the server reply with these bytes, and return the answer."""
        asking = asyncio.ensure_future(self.session.get(self.url))
        reader, writer = await asyncio.wait_for(asyncio.shield(self.server), PATIENCE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        found = await asyncio.wait_for(asking, PATIENCE)
        assert isinstance(found, Answer)
        self.answers.append(found)
        return found

    async def write(self, data: bytes) -> None:
        (await self.server)[1].write(data)

    async def end(self) -> None:
        (await self.server)[1].close()


async def until(condition: Any) -> None:
    """Wait, turn by turn of the loop, until the client has come so far."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # aiohttp has no event for it
            await asyncio.sleep(0)


def handler_of(found: Answer) -> Handler:
    """Return the handler of an answer whose body is under way."""
    assert found.connection is not None
    handler = found.connection.protocol
    assert isinstance(handler, Handler)
    return handler


@pytest.fixture(params=["C", "Python"])
async def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    if request.param == "Python":
        monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", HttpResponseParserPy)
    async with opened() as found:
        yield found


@asynccontextmanager
async def opened() -> AsyncIterator[Scene]:
    scenes: list[Scene] = []
    server = await asyncio.start_server(
        lambda reader, writer: scenes[0].server.set_result((reader, writer)), "127.0.0.1", 0
    )
    host, port = server.sockets[0].getsockname()
    session = aiohttp.ClientSession(connector=AiohttpConnector(Handler), response_class=Answer)
    async with session:
        scenes.append(Scene(session, f"http://{host}:{port}/"))
        yield scenes[0]
        for each in scenes[0].answers:
            each.close()
    if scenes[0].server.done():
        await scenes[0].end()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("ours", "theirs"), [(AiohttpHandler, ResponseHandler), (AiohttpConnector, aiohttp.TCPConnector)]
)
def test_private_names_exist_in_the_installed_version(ours: type, theirs: type) -> None:
    """Each private name that the adapter uses is one of aiohttp's; the message names those that are not."""
    used = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(ours)))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")
    }
    sources = "".join(inspect.getsource(each) for each in theirs.__mro__ if each.__module__[:7] == "aiohttp")
    missing = {name for name in used if f"self.{name}" not in sources}
    assert used
    assert missing == set(), f"names that {theirs.__name__} of aiohttp {aiohttp.__version__} lacks"


async def test_connector_makes_handlers_of_the_class_and_hands_them_out_again(scene: Scene) -> None:
    """Each answer comes over a handler of the given class; the pool keeps it for the next request."""
    first = await scene.ask(answer(3, b"a"))
    handler = handler_of(first)
    await scene.write(b"bc")
    assert await first.read() == b"abc"
    await until(lambda: first.connection is None)
    second = await scene.ask(answer(2, b"x"))
    assert handler_of(second) is handler
    assert (handler.requests, handler.heads) == (2, [200, 200])
    await scene.write(b"y")
    assert await second.read() == b"xy"


async def test_handler_has_the_body_that_is_due(scene: Scene) -> None:
    """A body is due from its head to its last byte; what comes behind that answers nothing."""
    found = await scene.ask(answer(3, b"a"))
    handler = handler_of(found)
    assert handler.body is found.content
    assert not handler.body_ended
    await scene.write(b"bc")
    assert await found.read() == b"abc"
    assert handler.body_ended


async def test_handler_ends_its_connection(scene: Scene) -> None:
    """A connection that was ended is closed, and used for no other request."""
    found = await scene.ask(answer(3, b"a"))
    handler = handler_of(found)
    handler.end()
    assert handler.should_close
    reader, _ = await scene.server
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""


async def test_start_of_an_answer_has_its_connection(scene: Scene) -> None:
    """The address of the server is known before the head is read."""
    found = await scene.ask(answer(1, b"a"))
    assert found.peer is not None
    assert found.peer[0] == "127.0.0.1"
    await found.read()


async def test_limit_body_ends_the_wait_for_the_next_byte(scene: Scene) -> None:
    """The limit holds from the next byte on."""
    found = await scene.ask(answer(10, b"a"))
    limit_body(found.read_from, 0.01)
    await scene.write(b"b")
    with pytest.raises(aiohttp.SocketTimeoutError):
        await asyncio.wait_for(found.read(), PATIENCE)


async def test_unread_bytes_of_a_broken_body(scene: Scene) -> None:
    """A body that breaks has bytes that were not read; aiohttp raises its error afterwards as before."""
    found = await scene.ask(answer(10, b"abc"))
    assert unread(found.content) == b""
    await scene.end()
    await until(lambda: found.content.exception() is not None)
    assert unread(found.content) == b"abc"
    with pytest.raises(aiohttp.ClientPayloadError):
        await found.content.readany()


class Reader(asyncio.BufferedProtocol):
    """A protocol that takes what the transport brings."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self._buffer = bytearray(64 * 1024)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]

    def eof_received(self) -> None:
        self.ended = True


async def test_borrowed_socket_brings_the_rest_and_goes_back_to_the_pool(scene: Scene) -> None:
    """Bytes behind those that aiohttp has go to the reader alone; afterwards the connection is used again."""
    found = await scene.ask(answer(LARGE, b"early"))
    handler, reader = handler_of(found), Reader()
    socket = BorrowedSocket.of(found)
    assert socket is not None
    assert socket.transport is None
    received = socket.drain()
    socket.lend(reader)
    assert socket.transport is not None
    await scene.write(bytes(LARGE - 5))
    await until(lambda: len(received) + len(reader.received) == LARGE)
    socket.hand_back()
    assert socket.transport is None
    assert received.startswith(b"early")
    await until(lambda: found.connection is None)
    second = await scene.ask(answer(2, b"x"))
    assert handler_of(second) is handler
    await scene.write(b"y")
    assert await second.read() == b"xy"


async def test_borrowed_socket_reports_the_end_of_the_connection(scene: Scene) -> None:
    """aiohttp learns of the end, and the body is broken."""
    found = await scene.ask(answer(LARGE, b"early"))
    socket = BorrowedSocket.of(found)
    assert socket is not None
    socket.drain()
    socket.lend(Reader())
    socket.pause_writing()
    socket.resume_writing()
    socket.eof_received()
    socket.connection_lost(None)
    assert socket.transport is None
    with pytest.raises(aiohttp.ClientPayloadError):
        await found.read()


async def test_no_socket_is_borrowed_from_a_whole_or_a_broken_body(scene: Scene) -> None:
    """aiohttp has all bytes of such a body, and perhaps another use for the connection."""
    whole = await scene.ask(answer(3, b"abc"))
    await until(lambda: whole.connection is None)
    assert BorrowedSocket.of(whole) is None
    broken = await scene.ask(answer(10, b"abc"))
    await scene.end()
    await until(lambda: broken.content.exception() is not None)
    assert BorrowedSocket.of(broken) is None
