"""The response cache: known heads are answered without parsing, and look the same to clients."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO

import pytest
from aiohttp import web

from mirror.cache.results import Outcome
from mirror.config.schema import LogSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.util.log import configure
from mirror.web import responses
from mirror.web.accept.protocol_factory import ProtocolFactory
from mirror.web.fastpath import hit_log
from mirror.web.fastpath.hit_log import LONGEST_LIFE_SECONDS
from mirror.web.protocol import RequestProtocol
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import ResponseCache
from tests.wire import Wire, request_head

DIGEST = Digest.of(b"content")


class FullPath:
    """A full path that answers each request with the same content, and counts its requests."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.now = 0.0
        self.used: list[Digest] = []
        self.metrics = Metrics()
        self.removal_epoch = 0
        self.access_epoch = 0
        self.push_epoch: int | None = None  # of answers that a push ends
        self.response_cache = ResponseCache(
            limit,
            self.metrics,
            self.used.append,
            lambda: self.now,
            lambda: self.removal_epoch,
            lambda: self.access_epoch,
        )
        self.response_cache.push_epoch = lambda: self.push_epoch or 0
        self.ttl = 5.0
        self.identity_ttl = float("inf")
        self.content_type = "text/x"
        self.removing = 0
        self.revoking = 0
        self.requests = 0
        self.address = ""
        self.server: ProtocolFactory

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request.protocol, RequestProtocol)
        head, scope = request.protocol.head, request.protocol.scope
        self.requests += 1
        known = self.response_cache
        record = RequestRecord(request, known.removal_epoch(), known.access_epoch())
        record.push_epoch = self.push_epoch
        self.removal_epoch += self.removing
        self.access_epoch += self.revoking
        record.outcome, record.ttl, record.digest = Outcome.HIT, self.ttl, DIGEST
        record.identity_ttl = self.identity_ttl
        response = responses.buffered(record, 200, {"Content-Type": self.content_type}, b"content")
        if head is not None:
            await self.response_cache.remember(scope, head, record, response)
        return response

    def connections(self) -> list[RequestProtocol]:
        return [each for each in self.server.connections if isinstance(each, RequestProtocol)]

    async def ask(self, wire: Wire, *headers: str, times: int = 1) -> list[bytes]:
        bodies = []
        for _ in range(times):
            wire.send("GET", "/v2/x", headers)
            bodies.append((await wire.reply()).body)
        return bodies


@asynccontextmanager
async def running(full: FullPath) -> AsyncIterator[Wire]:
    full.server = ProtocolFactory(full.response_cache, full.metrics, full, keepalive_timeout=60)
    runner = web.ServerRunner(full.server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    full.address = f"127.0.0.1:{runner.addresses[0][1]}"
    async with await Wire.open(full.address) as wire:
        yield wire
    await runner.cleanup()


async def test_cached_response_from_the_third_request_on() -> None:
    """A head that the full path has seen twice is answered from memory, on every connection."""
    full = FullPath()
    async with running(full) as wire, await Wire.open(full.address) as other:
        assert await full.ask(wire, times=5) == [b"content"] * 5
        assert await full.ask(other) == [b"content"]
    assert full.requests == 2
    full.response_cache.flush()
    assert full.metrics.requests.of("other", "hit").bytes == 4 * len(b"content")
    assert full.used == [DIGEST]


async def test_recording_of_served_responses_is_prompt() -> None:
    """Served responses are recorded on a timer, when many are pending, and before metrics are read."""
    full = FullPath()
    tally = full.metrics.requests.of("other", "hit")
    async with running(full) as wire:
        await full.ask(wire, times=5)
        async with asyncio.timeout(10):
            while tally.requests < 3:  # noqa: ASYNC110  # a counter has no event
                await asyncio.sleep(0)
        await full.ask(wire)
        assert tally.requests == 3
        full.metrics.requests.flush_pending()
        assert tally.requests == 4


async def test_pending_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many responses in a moment are recorded before the timer."""
    monkeypatch.setattr(hit_log, "MAX_PENDING", 2)
    monkeypatch.setattr(hit_log, "FLUSH_SECONDS", 3600.0)
    full = FullPath()
    async with running(full) as wire:
        await full.ask(wire, times=2 + 5)
        assert full.metrics.requests.of("other", "hit").requests == 4


async def test_cached_response_is_for_the_identical_head() -> None:
    """One header more, or other credentials, take the full path."""
    full = FullPath()
    async with running(full) as wire:
        await full.ask(wire, "Authorization: Basic YTph", times=3)
        assert full.requests == 2
        await full.ask(wire, "Authorization: Basic YjpiCg==")
        await full.ask(wire, "X-Other: 1")
    assert full.requests == 4


async def test_cached_response_expires() -> None:
    """A response is served for its lifetime, and for LONGEST_LIFE_SECONDS at most."""
    full = FullPath()
    async with running(full) as wire:
        await full.ask(wire, times=3)
        full.now = 4.9
        await full.ask(wire)
        assert full.requests == 2
        full.now, full.ttl = 5.0, float("inf")
        await full.ask(wire, times=2)
        assert full.requests == 3
        full.now += LONGEST_LIFE_SECONDS
        await full.ask(wire)
    assert full.requests == 4


async def test_removal_invalidates_every_cached_response() -> None:
    """A removal also invalidates the response that is in the making meanwhile."""
    full = FullPath()
    async with running(full) as wire:
        await full.ask(wire, times=3)
        full.removal_epoch = 1
        await full.ask(wire)
        assert full.requests == 3
        await full.ask(wire)
        assert full.requests == 3
        full.removal_epoch, full.removing = 2, 1
        await full.ask(wire, times=3)
    assert full.requests == 6


async def test_push_invalidates_the_responses_that_follow_pushes() -> None:
    full = FullPath()
    full.push_epoch = 1
    async with running(full) as wire:
        await full.ask(wire, times=3)
        assert full.requests == 2
        full.push_epoch = 2
        await full.ask(wire, times=3)
        assert full.requests == 3
        full.push_epoch = None  # an answer of an upstream
        await full.ask(wire, "X: 1", times=3)
        assert full.requests == 5
        full.response_cache.push_epoch = lambda: 7
        await full.ask(wire, "X: 1")
    assert full.requests == 5


async def test_change_of_rights_invalidates_every_cached_response() -> None:
    """A change also invalidates the response that is in the making meanwhile."""
    full = FullPath()
    async with running(full) as wire:
        await full.ask(wire, times=3)
        full.access_epoch = 1
        await full.ask(wire)
        assert full.requests == 3
        await full.ask(wire)
        assert full.requests == 3
        full.access_epoch, full.revoking = 2, 1
        await full.ask(wire, times=3)
    assert full.requests == 6


async def test_cached_response_lasts_no_longer_than_its_clients_identity() -> None:
    """A token that is about to expire, or none that a response may be remembered for."""
    full = FullPath()
    full.identity_ttl = 2.0
    async with running(full) as wire:
        await full.ask(wire, times=3)
        full.now = 1.9
        await full.ask(wire)
        assert full.requests == 2
        full.now, full.identity_ttl = 2.0, 0.0
        await full.ask(wire, times=3)
    assert full.requests == 5


@pytest.mark.parametrize("ttl", [0.0, -1.0])
async def test_response_without_lifetime_is_not_cached(ttl: float) -> None:
    """A miss, a stale response and an error are not cached."""
    full = FullPath()
    full.ttl = ttl
    async with running(full) as wire:
        await full.ask(wire, times=4)
    assert full.requests == 4


async def test_response_cache_is_bounded() -> None:
    """Nothing is cached with a limit of 0."""
    full = FullPath(limit=0)
    async with running(full) as wire:
        await full.ask(wire, times=4)
    assert full.requests == 4


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", ["Connection: close"]),
        ("POST", []),
        ("GET", ["Content-Length: 0"]),
        ("GET", ["Host: mirror.test", "Transfer-Encoding: chunked", "", "0"]),
        ("GET", ["Upgrade: h2c", "Connection: Upgrade"]),
    ],
)
async def test_request_with_a_body_or_connection_change_is_not_cached(
    method: str, headers: list[str]
) -> None:
    """A request that ends the connection, or has a body, always takes the parser."""
    full = FullPath()
    async with running(full):
        for _ in range(4):
            async with await Wire.open(full.address) as wire:
                wire.send(method, "/v2/x", headers)
                assert (await wire.reply()).body == b"content"
    assert full.requests == 4


async def test_http_1_0_response_is_not_cached() -> None:
    """Responses to HTTP/1.0 look different."""
    full = FullPath()
    async with running(full):
        for _ in range(4):
            async with await Wire.open(full.address) as wire:
                wire.writer.write(b"GET /v2/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert await wire.reader.readuntil(b"content")
    assert full.requests == 4


async def test_head_in_two_segments_takes_the_parser() -> None:
    """After a head in two segments, each request on that connection takes the parser."""
    full = FullPath()
    async with running(full) as wire, await Wire.open(full.address) as other:
        await full.ask(wire, times=3)
        other.writer.write(b"GET /v2/x HTTP/1.1\r\n")
        await other.writer.drain()
        while all(each._only_heads for each in full.connections()):  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0)
        other.writer.write(b"Host: mirror.test\r\n\r\n")
        assert (await other.reply()).body == b"content"
        await full.ask(other)
    assert full.requests == 4


async def test_pipelined_requests_are_answered_in_order() -> None:
    """A known head behind a running request waits for its turn."""
    full = FullPath()
    async with running(full) as wire, await Wire.open(full.address) as other:
        await full.ask(wire, times=3)
        known = request_head("GET", "/v2/x")
        other.writer.write(known + known)
        for _ in range(2):
            assert (await other.reply()).body == b"content"
    assert full.requests == 4


@pytest.mark.usefixtures("own_logging")
async def test_access_line_of_a_cached_response() -> None:
    """The line has the same fields in the same order, with a time and an id of its own."""
    stream = StringIO()
    configure(LogSettings(format="json"), stream)
    full = FullPath()
    async with running(full) as wire:
        await full.ask(wire, times=4)
    full.response_cache.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 2
    assert len({line["id"] for line in lines}) == 2
    assert all(line["client"] == "127.0.0.1" and line["bytes"] == 7 for line in lines)


@pytest.mark.usefixtures("own_logging")
async def test_no_access_line_above_level_info() -> None:
    """The response is cached at a higher log level, too."""
    stream = StringIO()
    configure(LogSettings(level="warning"), stream)
    full = FullPath()
    async with running(full) as wire:
        await full.ask(wire, times=4)
    full.response_cache.flush()
    assert (stream.getvalue(), full.requests) == ("", 2)


async def test_response_that_cannot_be_remembered_is_still_sent() -> None:
    """A header that cannot be encoded costs the response cache its entry, and no client its answer."""
    full = FullPath()
    full.content_type = "text/x\udcff"
    async with running(full) as wire:
        assert await full.ask(wire, times=4) == [b"content"] * 4
        assert full.requests == 4
