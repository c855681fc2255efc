"""Known request heads: answered without being parsed, and nobody can tell but by the clock."""

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
from mirror.web import response_cache, responses
from mirror.web.protocol import ProtocolFactory, RequestProtocol
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import LONGEST_LIFE_SECONDS, ResponseCache
from tests.wire import Wire, request_head

DIGEST = Digest.of(b"content")


class Full:
    """A full path that answers everything with the same content, and counts how often it is gone."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.now = 0.0
        self.used: list[Digest] = []
        self.metrics = Metrics()
        self.removed = 0
        self.response_cache = ResponseCache(
            limit, self.metrics, self.used.append, lambda: self.now, lambda: self.removed
        )
        self.lasts = 5.0
        self.removing = 0
        self.gone = 0
        self.address = ""
        self.server: ProtocolFactory

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request.protocol, RequestProtocol)
        head = request.protocol.head
        self.gone += 1
        record = RequestRecord(request, self.response_cache.removed())
        self.removed += self.removing
        record.outcome, record.lasts, record.digest = Outcome.HIT, self.lasts, DIGEST
        response = responses.buffered(record, 200, {"Content-Type": "text/x"}, b"content")
        if head is not None:
            await self.response_cache.remember(head, record, response)
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
async def running(full: Full) -> AsyncIterator[Wire]:
    full.server = ProtocolFactory(full.response_cache, full.metrics, full, keepalive_timeout=60)
    runner = web.ServerRunner(full.server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    full.address = f"127.0.0.1:{runner.addresses[0][1]}"
    async with await Wire.open(full.address) as wire:
        yield wire
    await runner.cleanup()


async def test_the_third_time_it_is_known() -> None:
    """Seen twice on the full path, then answered from memory, on every connection."""
    full = Full()
    async with running(full) as wire, await Wire.open(full.address) as other:
        assert await full.ask(wire, times=5) == [b"content"] * 5
        assert await full.ask(other) == [b"content"]
    assert full.gone == 2
    full.response_cache.flush()
    assert full.metrics.requests.of("other", "hit").bytes == 4 * len(b"content")
    assert full.used == [DIGEST]


async def test_what_was_given_is_noted_soon() -> None:
    """Without anybody asking; and at once when there is much of it, or somebody wants to know."""
    full = Full()
    tally = full.metrics.requests.of("other", "hit")
    async with running(full) as wire:
        await full.ask(wire, times=5)
        async with asyncio.timeout(10):
            while tally.requests < 3:  # noqa: ASYNC110  # a number says nothing
                await asyncio.sleep(0)
        await full.ask(wire)
        assert tally.requests == 3
        full.metrics.requests.flush_pending()
        assert tally.requests == 4


async def test_not_much_is_left_to_be_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are answered in a moment."""
    monkeypatch.setattr(response_cache, "MAX_PENDING", 2)
    monkeypatch.setattr(response_cache, "FLUSH_SECONDS", 3600.0)
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=2 + 5)
        assert full.metrics.requests.of("other", "hit").requests == 4


async def test_another_head_is_another_question() -> None:
    """One header more, or other credentials: nothing is concluded from what is known."""
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, "Authorization: Basic YTph", times=3)
        assert full.gone == 2
        await full.ask(wire, "Authorization: Basic YjpiCg==")
        await full.ask(wire, "X-Other: 1")
    assert full.gone == 4


async def test_an_answer_lasts_as_long_as_it_is_true() -> None:
    """And never longer than the full path may be left out."""
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=3)
        full.now = 4.9
        await full.ask(wire)
        assert full.gone == 2
        full.now, full.lasts = 5.0, float("inf")
        await full.ask(wire, times=2)
        assert full.gone == 3
        full.now += LONGEST_LIFE_SECONDS
        await full.ask(wire)
    assert full.gone == 4


async def test_a_removal_ends_every_answer() -> None:
    """Also the one that is being made while it happens."""
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=3)
        full.removed = 1
        await full.ask(wire)
        assert full.gone == 3
        await full.ask(wire)
        assert full.gone == 3
        full.removed, full.removing = 2, 1
        await full.ask(wire, times=3)
    assert full.gone == 6


@pytest.mark.parametrize("lasts", [0.0, -1.0])
async def test_what_may_change_at_once_is_not_kept(lasts: float) -> None:
    """A miss, a stale answer, an error."""
    full = Full()
    full.lasts = lasts
    async with running(full) as wire:
        await full.ask(wire, times=4)
    assert full.gone == 4


async def test_memory_is_bounded() -> None:
    """With no room nothing is kept."""
    full = Full(limit=0)
    async with running(full) as wire:
        await full.ask(wire, times=4)
    assert full.gone == 4


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
async def test_what_changes_the_connection_is_not_kept(method: str, headers: list[str]) -> None:
    """The end of a connection, or a body, is for the parser."""
    full = Full()
    async with running(full):
        for _ in range(4):
            async with await Wire.open(full.address) as wire:
                wire.send(method, "/v2/x", headers)
                assert (await wire.reply()).body == b"content"
    assert full.gone == 4


async def test_http_1_0_is_not_kept() -> None:
    """Its answers look different."""
    full = Full()
    async with running(full):
        for _ in range(4):
            async with await Wire.open(full.address) as wire:
                wire.writer.write(b"GET /v2/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert await wire.reader.readuntil(b"content")
    assert full.gone == 4


async def test_a_head_in_two_segments_is_parsed() -> None:
    """And so is everything after it on that connection, whatever it looks like."""
    full = Full()
    async with running(full) as wire, await Wire.open(full.address) as other:
        await full.ask(wire, times=3)
        other.writer.write(b"GET /v2/x HTTP/1.1\r\n")
        await other.writer.drain()
        while all(each._whole for each in full.connections()):  # noqa: ASYNC110  # nothing else tells it
            await asyncio.sleep(0)
        other.writer.write(b"Host: mirror.test\r\n\r\n")
        assert (await other.reply()).body == b"content"
        await full.ask(other)
    assert full.gone == 4


async def test_pipelined_requests_are_answered_in_order() -> None:
    """A known head behind one that is being worked on waits for its turn."""
    full = Full()
    async with running(full) as wire, await Wire.open(full.address) as other:
        await full.ask(wire, times=3)
        known = request_head("GET", "/v2/x")
        other.writer.write(known + known)
        for _ in range(2):
            assert (await other.reply()).body == b"content"
    assert full.gone == 4


@pytest.mark.usefixtures("own_logging")
async def test_the_access_line_is_like_any_other() -> None:
    """The same fields in the same order, with a time and an id of its own."""
    stream = StringIO()
    configure(LogSettings(format="json"), stream)
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=4)
    full.response_cache.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 2
    assert len({line["id"] for line in lines}) == 2
    assert all(line["client"] == "127.0.0.1" and line["bytes"] == 7 for line in lines)


@pytest.mark.usefixtures("own_logging")
async def test_no_line_where_none_is_wanted() -> None:
    """With a higher level the answer is known all the same."""
    stream = StringIO()
    configure(LogSettings(level="warning"), stream)
    full = Full()
    async with running(full) as wire:
        await full.ask(wire, times=4)
    full.response_cache.flush()
    assert (stream.getvalue(), full.gone) == ("", 2)
