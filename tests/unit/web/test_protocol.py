"""Connections: requests that are not HTTP, and requests that are one head."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from mirror.metrics.metrics import Metrics
from mirror.web.framing import is_one_head
from mirror.web.protocol import POLL_SECONDS, ProtocolFactory, RequestProtocol
from mirror.web.response_cache import ResponseCache
from tests.running import Running
from tests.wire import Wire, request_head

HEAD = request_head("GET", "/v2/x")


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET /v2/ HTTP/1.1\r\n\r\n", "Host"),
        (
            b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c2Vj\x00cmV0\r\n\r\n",
            "the header Authorization has a con",
        ),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization Basic c2VjcmV0\r\n\r\n", "no colon"),
        (b"FOO /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", "not an HTTP"),
        (
            b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"c2Vj" * 20_000 + b"\r\n\r\n",
            "the header X is longer than",
        ),
    ],
    ids=["no host", "control", "no colon", "method", "long"],
)
async def test_malformed_request_gets_an_oci_error(
    mirror: Running, sent: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """400 with a reason, counted, one line in the log, no traceback, and no byte of the request."""
    with capture_logs() as lines:
        async with await Wire.open(mirror.address) as wire:
            wire.writer.write(sent)
            reply = await wire.reply()
            assert await wire.reader.read() == b""
    failure = json.loads(reply.body)["errors"][0]
    assert (reply.status, reply.header("content-type"), failure["code"]) == (
        400,
        "application/json",
        "UNSUPPORTED",
    )
    assert why in failure["message"]
    access: list[MutableMapping[str, Any]] = [line for line in lines if line["event"] == "request"]
    assert [(line["status"], line["client"]) for line in access] == [(400, "127.0.0.1")]
    assert "c2Vj" not in str(lines) + str(reply.body) + caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert await mirror.metric('registry_mirror_requests_total{kind="other",outcome="error"}') == 1


async def test_tls_probe_is_no_error(mirror: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Docker and Podman try TLS first where plain HTTP is allowed: neither logged nor counted as an error."""
    with capture_logs() as lines:
        async with await Wire.open(mirror.address) as wire:
            wire.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            reply = await wire.reply()
            assert await wire.reader.read() == b""
    assert reply.status == 400
    assert "TLS" in json.loads(reply.body)["errors"][0]["message"]
    assert [line["event"] for line in lines if line["log_level"] != "debug"] == []
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert await mirror.metric('registry_mirror_requests_total{kind="other",outcome="error"}') == 0


@pytest.mark.parametrize("data", [HEAD, request_head("HEAD", "/v2/x", ["Accept: */*"])])
def testis_one_head(data: bytes) -> None:
    """One head reaches from the method to the empty line."""
    assert is_one_head(data)


@pytest.mark.parametrize(
    "data",
    [
        HEAD + HEAD,
        HEAD + b"x",
        HEAD[:-1],
        HEAD[:-2],
        HEAD.replace(b"\r\n", b"\n"),
        b"GET /v2/x HTTP/1.1\nHost: x\n\n" + HEAD,
        b"GET /v2/x HTTP/1.1\r\nHost: x\n\r\n" + HEAD,
        request_head("PUT", "/v2/x"),
        request_head("GET", "/v2/x", ["CONTENT-LENGTH: 4"]),
        request_head("GET", "/v2/x", ["transfer-encoding: chunked"]),
        request_head("GET", "/v2/x", ["Expect: 100-continue"]),
        request_head("GET", "/v2/x", ["Upgrade: h2c"]),
    ],
)
def test_is_not_one_head(data: bytes) -> None:
    """Several heads, a part of one, one with a body, or ambiguous line ends."""
    assert not is_one_head(data)


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
