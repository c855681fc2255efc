"""Connections that share what begins in a turn of the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from mirror.metrics.metrics import Metrics
from mirror.web.accept.protocol_factory import POLL_SECONDS, ProtocolFactory
from mirror.web.connections.large_answers import PIECE, LargeResponse
from mirror.web.protocol import RequestProtocol
from mirror.web.response_cache import ResponseCache
from tests.fakes.content import sample
from tests.wire import Wire

# An answer that no connection takes at once.
LONG, BODY = "/manifests/long", sample(16 * 1024 * 1024)


class InTurns:
    """A server whose requests begin when the test says so, and what its handler was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.address = ""
        metrics = Metrics()
        known = ResponseCache(0, metrics, lambda _: None)
        self.server = ProtocolFactory(known, metrics, self, keepalive_timeout=60)
        self.server.turns.most, self.server.turns.least = 0, 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path == LONG:
            return LargeResponse(body=BODY)
        return web.Response(body=request.path.encode())

    async def waiting(self, requests: int) -> None:
        """Wait until so many requests wait for their turn."""
        while len(self.server.turns) != requests:  # noqa: ASYNC110  # a queue has no event
            await asyncio.sleep(0)

    def connections(self) -> list[RequestProtocol]:
        return [each for each in self.server.connections if isinstance(each, RequestProtocol)]


@pytest.fixture
async def in_turns() -> AsyncIterator[InTurns]:
    served = InTurns()
    runner = web.ServerRunner(served.server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.address = f"127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def test_requests_begin_in_turns_and_small_ones_first(in_turns: InTurns) -> None:
    """A request for a manifest does not wait for those for blobs that came before it."""
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await Wire.open(in_turns.address)) for _ in range(3)]
        for number, (wire, path) in enumerate(
            zip(wires, ("/blobs/1", "/blobs/2", "/manifests/t"), strict=True)
        ):
            wire.send("GET", path)
            await in_turns.waiting(number + 1)
        in_turns.server.turns.most = 1
        assert [(await wire.reply()).body for wire in wires] == [b"/blobs/1", b"/blobs/2", b"/manifests/t"]
    assert in_turns.asked == ["/manifests/t", "/blobs/1", "/blobs/2"]


async def test_long_answer_is_copied_in_pieces_and_ends_at_once(in_turns: InTurns) -> None:
    """The transport has one piece of an answer that its client does not take; its end waits for no turn."""
    in_turns.server.turns.most = 1
    async with await Wire.open(in_turns.address) as silent, asyncio.timeout(60):
        silent.send("GET", LONG)
        while LONG not in in_turns.asked:  # noqa: ASYNC110  # requests have no event here
            await asyncio.sleep(0)
        (connection,) = in_turns.connections()
        transport = connection.transport
        assert transport is not None
        while not transport.get_write_buffer_size():  # noqa: ASYNC110  # buffers have no event
            await asyncio.sleep(0)
        assert transport.get_write_buffer_size() < 2 * PIECE
        in_turns.server.turns.most = 0
        connection.drop()
        while in_turns.connections():  # noqa: ASYNC110  # connections have no event
            await asyncio.sleep(0)


async def test_long_answer_arrives_whole(in_turns: InTurns) -> None:
    """A head alone has no body, and the connection goes on behind both."""
    in_turns.server.turns.most = 1
    async with await Wire.open(in_turns.address) as wire:
        for method, body in (("GET", BODY), ("HEAD", b""), ("GET", BODY)):
            wire.send(method, LONG)
            assert (await wire.reply(method)).body == body


async def test_pipelined_request_stays_behind_one_that_waits_for_its_turn(in_turns: InTurns) -> None:
    """Pipelined requests are answered in order; meanwhile the connection does not count as idle."""
    async with await Wire.open(in_turns.address) as wire:
        wire.send("GET", "/blobs/1")
        await in_turns.waiting(1)
        (connection,) = in_turns.connections()
        assert connection.idle_since() is None
        assert not connection.was_begun
        wire.send("GET", "/manifests/t")
        while b"/manifests/t" not in connection._deferred:  # noqa: ASYNC110  # bytes have no event
            await asyncio.sleep(0)
        in_turns.server.turns.most = 1
        assert [(await wire.reply()).body for _ in range(2)] == [b"/blobs/1", b"/manifests/t"]
        assert connection.was_begun


async def test_request_of_a_client_that_leaves_before_its_turn_is_dropped(in_turns: InTurns) -> None:
    """The next request has its turn."""
    async with await Wire.open(in_turns.address) as leaving, await Wire.open(in_turns.address) as staying:
        leaving.send("GET", "/blobs/1")
        await in_turns.waiting(1)
        leaving.reset()
        while len(in_turns.connections()) > 1:  # noqa: ASYNC110  # connections have no event
            await asyncio.sleep(0)
        staying.send("GET", "/blobs/2")
        await in_turns.waiting(2)
        in_turns.server.turns.most = 1
        assert (await staying.reply()).body == b"/blobs/2"
    assert in_turns.asked == ["/blobs/2"]


async def test_drain_waits_for_first_requests_that_wait_for_their_turn(in_turns: InTurns) -> None:
    """Such a client connected in time."""
    async with await Wire.open(in_turns.address) as wire:
        wire.send("GET", "/blobs/1")
        await in_turns.waiting(1)
        drain = asyncio.create_task(in_turns.server.await_first_requests(60))
        done, _ = await asyncio.wait([drain], timeout=3 * POLL_SECONDS)
        assert not done
        in_turns.server.turns.most = 1
        assert (await wire.reply()).body == b"/blobs/1"
        await drain
