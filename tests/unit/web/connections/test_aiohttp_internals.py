"""The server of the installed aiohttp, with each of its parsers: what the mirror's connections rely on."""

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.http_parser import HttpRequestParserPy

from mirror.web.connections.aiohttp_internals import (
    NO_BODY,
    AiohttpConnection,
    AiohttpServer,
    Refused,
    body_writer,
    closing,
    is_body_due,
    listener_logger,
    long_line,
    refused,
)
from tests.wire import Wire, request_head

# Time, in seconds, for anything to happen: long enough for a busy machine.
PATIENCE = 30

Failure = tuple[int, BaseException | None, str | None]


class Connection(AiohttpConnection):
    """A connection whose bytes the test may take before aiohttp does."""

    __slots__ = ("failures", "kept", "received")

    def __init__(self, manager: Any, **options: Any) -> None:
        super().__init__(manager, **options)
        self.kept = False
        self.failures: list[Failure] = []
        self.received: Callable[[bytes], object] = super().data_received

    def data_received(self, data: bytes) -> None:
        self.received(data)

    def parse(self, data: bytes) -> None:
        """Have aiohttp parse `data`."""
        super().data_received(data)

    def is_kept(self) -> bool:
        return self.kept

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        self.failures.append((status, exc, message))
        response = web.Response(status=status, text="refused")
        response.force_close()
        return response


class Factory(AiohttpServer):
    """Maker of `Connection`."""

    def __call__(self) -> web.RequestHandler:
        return Connection(self, **self.connection_options)


class Served:
    """A server, its one connection, and the client's side of that."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = self._answer
        self.server = Factory(self._handle, access_log=None, keepalive_timeout=PATIENCE, max_line_size=4096)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answer(request)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.began.set()
        await self.go_on.wait()
        return web.Response(text=request.path)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, turn by turn of the loop, until the server has come so far."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  # aiohttp has no event for it
                await asyncio.sleep(0)

    async def connection(self) -> Connection:
        """Return the server's side of the connection, once its task waits for a request."""
        await self.until(lambda: any(each._waits_for_request() for each in self._connections()))
        return self._connections()[0]

    def _connections(self) -> list[Connection]:
        return [each for each in self.server.connections if isinstance(each, Connection)]


@pytest.fixture(params=["C", "Python"])
async def served(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Served, Wire]]:
    if request.param == "Python":
        monkeypatch.setattr("aiohttp.web_protocol.HttpRequestParser", HttpRequestParserPy)
    served = Served()
    runner = web.ServerRunner(served.server, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with await Wire.open(f"127.0.0.1:{runner.addresses[0][1]}") as wire:
        yield served, wire
    served.go_on.set()
    await runner.cleanup()


def head(path: str, *headers: str, method: str = "GET") -> bytes:
    return request_head(method, path, headers)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(AiohttpConnection, web.RequestHandler), (AiohttpServer, web.Server)]
)
def test_private_names_exist_in_the_installed_version(ours: type, theirs: type) -> None:
    """Each private name that the adapter uses is one of aiohttp's; the message names those that are not.

    Its own ones are for subclasses; what it overrides and calls by `super()` must be there.
    """
    used = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(ours)))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and not (isinstance(node.value, ast.Name) and node.attr in vars(ours))
    }
    names = {*dir(theirs), *theirs.__init__.__code__.co_names}  # type: ignore[misc]  # attributes set there
    assert used
    assert used - names == set(), f"names that {theirs.__name__} of aiohttp {aiohttp.__version__} lacks"


async def test_waits_for_request_between_requests_only(served: tuple[Served, Wire]) -> None:
    """A connection waits before its first request and behind each response, and runs one between."""
    at, wire = served
    connection = await at.connection()
    for path in ("/first", "/second"):
        assert (connection._waits_for_request(), connection._runs_request()) == (True, False)
        wire.writer.write(head(path))
        await asyncio.wait_for(at.began.wait(), PATIENCE)
        assert (connection._waits_for_request(), connection._runs_request()) == (False, True)
        at.go_on.set()
        assert (await wire.reply()).body == path.encode()
        await at.until(connection._waits_for_request)
        at.began.clear()
        at.go_on.clear()


async def test_queue_has_parsed_requests_and_the_last_can_be_chosen(served: tuple[Served, Wire]) -> None:
    """Requests behind a running one are queued with head and body; a closing one ends the connection."""
    at, wire = served
    connection = await at.connection()
    wire.writer.write(head("/running"))
    await asyncio.wait_for(at.began.wait(), PATIENCE)
    wire.writer.write(head("/a", "X-Name: value", method="HEAD") + head("/b") + head("/c"))
    await at.until(lambda: len(connection._queue) == 3)
    first, body = connection._queue[0]
    assert not isinstance(first, Refused)
    assert (first.method, first.path, first.version) == ("HEAD", "/a", aiohttp.HttpVersion11)
    assert (first.headers["x-name"], first.upgrade, first.should_close) == ("value", False, False)
    assert first.url.path == "/a"
    assert body is NO_BODY
    connection._queue.pop()
    second, body = connection._queue.pop()
    assert not isinstance(second, Refused)
    connection._queue.append((closing(second), body))
    at.go_on.set()
    assert (await wire.reply()).body == b"/running"
    assert (await wire.reply("HEAD")).body == b""
    assert (await wire.reply()).header("connection") == "close"
    assert await wire.reader.read() == b""
    assert [each.path for each in at.requests] == ["/running", "/a", "/b"]


async def test_queue_is_bounded_and_the_rest_is_parsed_later(served: tuple[Served, Wire]) -> None:
    """A full queue takes no more; all requests are answered in the end, in their order."""
    at, wire = served
    connection = await at.connection()
    wire.writer.write(head("/0"))
    await asyncio.wait_for(at.began.wait(), PATIENCE)
    assert not connection._queue_is_full
    wire.writer.write(b"".join(head(f"/{number}") for number in range(1, 50)))
    await at.until(lambda: connection._queue_is_full)
    assert len(connection._queue) < 49
    at.go_on.set()
    assert [(await wire.reply()).body for _ in range(50)] == [f"/{number}".encode() for number in range(50)]


async def test_refused_is_answered_by_handle_error(served: tuple[Served, Wire]) -> None:
    """The error handler is called with the refusal's own values, once the task is woken."""
    at, wire = served
    connection, error = await at.connection(), ValueError("no")
    connection._queue.append((refused(418, error, "words"), NO_BODY))
    connection._wake()
    assert (await wire.reply()).status == 418
    assert connection.failures == [(418, error, "words")]
    assert at.requests == []


async def test_listener_logger_has_nothing_of_a_request_that_is_none(
    served: tuple[Served, Wire], caplog: pytest.LogCaptureFixture
) -> None:
    """The error handler gets an error of the parser, which the log of a listener leaves out, and no other."""
    at, wire = served
    connection = await at.connection()
    wire.writer.write(b"this is no request\r\n\r\n")
    assert (await wire.reply()).status == 400
    ((status, error, _),) = connection.failures
    assert (status, long_line(error)) == (400, None)
    listener_logger().error("dropped", exc_info=error)
    listener_logger().error("kept", exc_info=ValueError())
    assert [each.message for each in caplog.records] == ["kept"]


async def test_long_line_has_the_limit_in_its_words(served: tuple[Served, Wire]) -> None:
    """A line beyond the limit is an error of its own."""
    at, wire = served
    connection = await at.connection()
    wire.writer.write(head("/" + 5000 * "a"))
    assert (await wire.reply()).status == 400
    words = long_line(connection.failures[0][1])
    assert words is not None
    assert "4096" in words


async def test_end_idle_at_closes_an_idle_connection(served: tuple[Served, Wire]) -> None:
    """The nearer limit counts, and the end comes without a byte."""
    at, wire = served
    connection = await at.connection()
    now = connection.loop.time()
    assert now < connection._idle_limit <= now + PATIENCE
    assert connection._idle_began == pytest.approx(connection._idle_limit - PATIENCE)
    connection._end_idle_at(now + 2 * PATIENCE)
    assert connection._idle_limit <= now + PATIENCE
    connection._end_idle_at(now)
    assert await asyncio.wait_for(wire.reader.read(), PATIENCE) == b""


async def test_is_kept_and_keep_idle_hold_the_connection(served: tuple[Served, Wire]) -> None:
    """A connection that works beside its task, or has just had an answer, is not closed as idle."""
    at, wire = served
    connection = await at.connection()
    connection.kept = True
    connection._end_idle_at(connection.loop.time())
    await at.until(lambda: connection._idle_limit > connection.loop.time() + PATIENCE / 2)
    connection.kept = False
    connection._end_idle_at(connection.loop.time())
    connection._keep_idle()
    for _ in range(3):
        await asyncio.sleep(0)  # the timer fires, and looks at the limit
    at.go_on.set()
    wire.writer.write(head("/still"))
    assert (await wire.reply()).body == b"/still"


class _Body:
    """A body that has ended, in the place of the one that the parser waits for."""

    def is_eof(self) -> bool:
        return True

    async def readany(self) -> bytes:
        return b""

    def set_exception(self, *_: Any) -> None:
        return None


async def test_renewed_parser_begins_with_a_head(served: tuple[Served, Wire]) -> None:
    """Behind a body that the parser was not given, a new one parses the next request of the connection."""
    at, wire = served
    at.go_on.set()
    connection = await at.connection()

    def take(data: bytes) -> None:
        split = data.index(b"\r\n\r\n") + 4
        connection.parse(data[:split])
        message, body = connection._queue.pop()
        assert body is not NO_BODY
        assert data[split:] == b"12345"
        connection._queue.append((message, _Body()))

    connection.received = take
    wire.writer.write(head("/push", "Content-Length: 5", method="POST") + b"12345")
    assert (await wire.reply()).body == b"/push"
    await at.until(connection._waits_for_request)
    connection._renew_parser()
    connection.received = connection.parse
    wire.writer.write(head("/next"))
    assert (await wire.reply()).body == b"/next"


async def test_forget_rest_drops_what_comes_behind_an_upgrade(served: tuple[Served, Wire]) -> None:
    """Bytes behind a request for another protocol are no request, once they are forgotten."""
    at, wire = served
    connection = await at.connection()
    upgrade = head("/upgrade", "Connection: Upgrade", "Upgrade: websocket")
    wire.writer.write(upgrade + head("/smuggled"))
    await asyncio.wait_for(at.began.wait(), PATIENCE)
    assert at.requests[0].headers["Upgrade"] == "websocket"
    connection._forget_rest()
    at.go_on.set()
    assert (await wire.reply()).body == b"/upgrade"
    await at.until(connection._waits_for_request)
    wire.writer.write(head("/next"))
    assert (await wire.reply()).body == b"/next"
    assert [each.path for each in at.requests] == ["/upgrade", "/next"]


async def test_pause_socket_leaves_bytes_to_the_kernel(served: tuple[Served, Wire]) -> None:
    """Nothing is read until the socket is resumed."""
    at, wire = served
    connection = await at.connection()
    at.go_on.set()
    connection._pause_socket()
    assert connection.transport is not None
    assert not connection.transport.is_reading()
    wire.writer.write(head("/late"))
    connection._resume_socket()
    assert connection.transport.is_reading()
    assert (await wire.reply()).body == b"/late"


async def test_body_writer_adds_nothing(served: tuple[Served, Wire]) -> None:
    """Head and body are the caller's own bytes, written beside the task of the connection."""
    at, wire = served
    connection = await at.connection()
    assert connection.transport is not None
    connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
    writer = body_writer(connection)
    await writer.write(b"abc")
    await writer.drain()
    assert (await wire.reply()).body == b"abc"


@pytest.mark.parametrize(
    ("method", "status", "due"), [("GET", 200, True), ("HEAD", 200, False), ("GET", 304, False)]
)
async def test_is_body_due(served: tuple[Served, Wire], method: str, status: int, due: bool) -> None:
    """A body is due between the head of the response and its end, where the request has one at all."""
    at, wire = served
    found: list[bool] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(status=status, body=b"x" if status == 200 else None)
        await response.prepare(request)
        found.append(is_body_due(response))
        await response.write_eof()
        found.append(is_body_due(response))
        return response

    at.answer = answer
    wire.writer.write(head("/", method=method))
    assert (await wire.reply(method)).status == status
    assert found == [due, False]


async def test_is_ending_when_the_server_shuts_down(served: tuple[Served, Wire]) -> None:
    """A connection that closes behind its response says so."""
    at, _ = served
    connection = await at.connection()
    assert not connection._is_ending()
    connection.close()
    assert connection._is_ending()
