"""Bounds of requests: bodies, other protocols, odd versions, slow and long heads, clients that left."""

import asyncio
import gzip
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.http_parser import HttpRequestParserPy

from mirror.web import protocol
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, Running, mirror_of
from tests.wire import Wire, request_head

pytestmark = pytest.mark.slow

# A second request on the same connection, which must never be answered behind one that ends it.
SMUGGLED = request_head("GET", "/v2/library/smuggled/manifests/t")

PROTOCOLS = [
    ["Connection: Upgrade", "Upgrade: websocket"],
    ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    ["Connection: Upgrade", "Upgrade: TLS/1.0"],
    ["Connection: Upgrade", "Upgrade: \xe9"],
    ["Upgrade: h2c"],
    ["Connection: upgrade", "Upgrade: websocket", "Content-Length: 5"],
]


@pytest.fixture(params=["C", "Python"])
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with each of aiohttp's two parsers."""
    if request.param == "Python":
        monkeypatch.setattr("aiohttp.web_protocol.HttpRequestParser", HttpRequestParserPy)


@pytest.fixture
async def mirror(_parser: None, fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        yield mirror


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Log records of the servers' libraries: aiohttp's and asyncio's."""
    caplog.set_level(logging.WARNING)
    return caplog


async def everything(mirror: Running, sent: bytes) -> bytes:
    """Send `sent`, and return all bytes until the mirror ends the connection."""
    async with await Wire.open(mirror.address) as wire:
        wire.writer.write(sent)
        return await asyncio.wait_for(wire.reader.read(), 10)


def statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", answer)


def body_of(length: int, headers: tuple[str, ...] = (), method: str = "GET") -> bytes:
    return request_head(method, "/v2/", [*headers, f"Content-Length: {length}"])


async def send_without_end(wire: Wire) -> None:
    while True:
        wire.writer.write(bytes(2**16))
        await wire.writer.drain()


async def test_compressed_body_is_never_inflated(mirror: Running) -> None:
    """A megabyte of gzip is a gigabyte of content, 3.7 s of processor time: it costs nothing here."""
    body = gzip.compress(bytes(2**20) * 256, 1)
    before = time.process_time()
    async with await Wire.open(mirror.address) as wire:
        wire.writer.write(body_of(len(body), ("Content-Encoding: gzip",)) + body)
        reply = await wire.reply()
        await asyncio.wait_for(wire.reader.read(), 10)
    assert (reply.status, reply.header("connection")) == (200, "close")
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_corrupt_body_writes_no_traceback(
    mirror: Running, coding: str, quiet: pytest.LogCaptureFixture
) -> None:
    """Bytes behind a head are not looked at, and so cannot be an error."""
    answer = await everything(mirror, body_of(9, (f"Content-Encoding: {coding}",)) + b"\x1f\x8bgarbage")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not quiet.records


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (["Content-Length: 5"], b"12345"),
        (["Content-Length: 5"], b"1"),
        (["Transfer-Encoding: chunked"], b"5\r\n12345\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b"5\r\n"),
        *[(headers, b"") for headers in PROTOCOLS],
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
async def test_body_or_another_protocol_ends_the_connection(
    mirror: Running, method: str, framing: list[str], body: bytes, quiet: pytest.LogCaptureFixture
) -> None:
    """One response, `Connection: close`, and the end, in one segment and in two; no traceback."""
    target = "example.com:443" if method == "CONNECT" else "/v2/"
    last = request_head(method, target, framing)
    for first, second in ((last + body + SMUGGLED, b""), (last, body + SMUGGLED)):
        async with await Wire.open(mirror.address) as wire:
            wire.writer.write(first)
            answer = await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.write(second)
            answer += await asyncio.wait_for(wire.reader.read(), 10)
        assert len(statuses(answer)) == 1
        # Errors of the parser are answered in HTTP/1.0, which says the same by default.
        assert answer.lower().count(b"connection: close") == answer.startswith(b"HTTP/1.1")
        assert statuses(answer)[0] < b"500"
    assert not quiet.records


async def test_pipelined_requests_before_a_body_are_answered(mirror: Running) -> None:
    """Pipelined requests in front of the last one keep their answers, in order."""
    before = request_head("GET", "/v2/") + request_head("DELETE", "/v2/")
    answer = await everything(mirror, before + body_of(3) + b"abc" + SMUGGLED)
    assert statuses(answer) == [b"200", b"405", b"200"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"GET /v2/ HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
        b"not HTTP\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        request_head("GET", "/v2/", ["Content-Length: x"]),
    ],
)
async def test_pipelined_requests_before_a_wrong_one_are_answered(mirror: Running, wrong: bytes) -> None:
    """An error is the answer to the wrong request, not to the first one that came in the same segment."""
    before = request_head("GET", "/v2/") + request_head("DELETE", "/v2/")
    answer = await everything(mirror, before + wrong + SMUGGLED)
    assert statuses(answer) == [b"200", b"405", b"400"]


async def test_many_long_pipelined_requests_are_no_long_head(mirror: Running) -> None:
    """More requests than aiohttp's queue holds, of more bytes than a head may have, are all answered."""
    requests = request_head("GET", "/v2/", [f"X: {'x' * 3_000}"]) * 79
    last = request_head("GET", "/v2/", ["Connection: close"])
    assert statuses(await everything(mirror, requests + last)) == [b"200"] * 80


async def test_wrong_request_behind_a_full_queue_is_answered_last(mirror: Running) -> None:
    """More requests than aiohttp's queue holds are answered before the wrong one behind them."""
    answer = await everything(mirror, request_head("GET", "/v2/") * 60 + b"not HTTP\r\n\r\n")
    assert statuses(answer) == [b"200"] * 60 + [b"400"]


@pytest.mark.parametrize(
    "last",
    [
        b"not HTTP\r\n\r\n",
        request_head("GET", "/v2/", ["Upgrade: h2c"]),
        b"GET /v2/ HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nX: " + b"x" * 50_000 + b"\r\nY: " + b"y" * 50_000 + b"\r\nZ: " + b"z" * 50_000,
    ],
    ids=["no HTTP", "upgrade", "version", "long head"],
)
async def test_answer_that_ends_the_connection_is_not_reset(
    mirror: Running, monkeypatch: pytest.MonkeyPatch, last: bytes
) -> None:
    """A client that is still sending can read its answer: the mirror takes the bytes before it closes."""
    monkeypatch.setattr(protocol, "LINGERING_SECONDS", NEVER)
    async with await Wire.open(mirror.address) as wire:
        wire.writer.write(last)
        assert await wire.reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(wire.reader.read(), 10)
        for _ in range(50):
            wire.writer.write(bytes(1024))
            await wire.writer.drain()


async def test_endless_body_is_answered_at_once_and_read_no_further(
    mirror: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror reads a bounded number of bytes, and ends the connection soon after its answer."""
    monkeypatch.setattr(protocol, "LINGERING_SECONDS", 0.2)
    async with await Wire.open(mirror.address) as wire:
        wire.writer.write(body_of(10**12, method="PUT"))
        reply = await wire.reply()
        assert (reply.status, reply.header("connection")) == (405, "close")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_without_end(wire), 10)


async def test_slow_body_holds_nothing(mirror: Running) -> None:
    """A client that sends half a body gets its answer and the end of the stream at once."""
    async with await Wire.open(mirror.address) as wire:
        wire.writer.write(body_of(1000, ("Expect: 100-continue",)) + b"half")
        reply = await wire.reply()
        assert reply.status == 200
        assert await asyncio.wait_for(wire.reader.read(), 10) == b""


@pytest.mark.parametrize(
    "version", ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/11.1", "HTTP/1.01"]
)
async def test_other_versions_are_refused(
    mirror: Running, version: str, quiet: pytest.LogCaptureFixture
) -> None:
    """The answer names our version, never theirs, and ends the connection."""
    answer = await everything(mirror, f"GET /v2/ {version}\r\nHost: x\r\n\r\n".encode() + SMUGGLED)
    assert statuses(answer) in ([b"505"], [b"400"])
    assert not quiet.records


@pytest.mark.parametrize(
    "target",
    [
        "/v2/library/app%2F\x9a/manifests/t",
        "/v2/library/\xff/manifests/t",
        "/v2/library/app/tags/list?last=\xff",
        "/v2/library/app/tags/list?n=1&ns=\xff",
        "/v2/_catalog?last=\xff",
        "/v2/library/app/referrers/sha256:" + "0" * 64 + "?artifactType=\xff",
        "/\xff",
        "/healthz?\xff",
    ],
)
async def test_target_beyond_ascii_is_refused(
    mirror: Running, target: str, quiet: pytest.LogCaptureFixture
) -> None:
    """Bytes that no URL has are the client's fault, for both parsers, and no error in the log."""
    answer = await everything(mirror, request_head("GET", target, ["Connection: close"]))
    assert statuses(answer) in ([b"400"], [b"200"] if "healthz" in target else [b"400"])
    assert not [each for each in quiet.records if each.levelno > logging.WARNING]


async def test_http2_preface_is_refused(mirror: Running, quiet: pytest.LogCaptureFixture) -> None:
    """A client that assumes HTTP/2 gets a 400 or 505 and the end of the connection."""
    answer = await everything(mirror, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    assert answer.split()[1] in (b"400", b"505")
    assert not quiet.records


@pytest.mark.parametrize("more", [[], ["Connection: keep-alive"], ["Content-Length: 4"]])
async def test_http_1_0_with_transfer_encoding_is_refused(mirror: Running, more: list[str]) -> None:
    """RFC 9112 6.1: the framing is faulty."""
    head = request_head("GET", "/v2/", [*more, "Transfer-Encoding: chunked"]).replace(
        b"HTTP/1.1", b"HTTP/1.0"
    )
    answer = await everything(mirror, head + b"0\r\n\r\n" + SMUGGLED)
    assert answer.split()[1] == b"400"
    assert answer.lower().count(b"content-length:") == 1


async def test_client_that_left_is_noticed(mirror: Running, fake: FakeRegistry) -> None:
    """A client that ends its direction has left: its connection ends at once, whatever it waits for."""
    fake.add_image("library/x", "t", [b"layer"])
    gate = fake.hold("/manifests/", after=-1, method="GET")
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", "/v2/library/x/manifests/t")
        await gate.reached.wait()
        wire.writer.write_eof()
        assert await asyncio.wait_for(wire.reader.read(), 10) == b""
    gate.release()


@pytest.mark.parametrize("sent", [b"", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n", b"\r\n"])
async def test_unfinished_first_head_ends_the_connection(
    mirror: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """A connection without a request is not kept as long as one between two requests."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    assert await everything(mirror, sent) == b""


async def test_unfinished_later_head_ends_the_connection(
    mirror: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for the rest of a head is that of the first, whatever came before and however it drips."""
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", "/v2/")
        assert (await wire.reply()).status == 200
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
        wire.writer.write(b"GET /v2/ HTTP")
        assert await asyncio.wait_for(wire.reader.read(), 10) == b""


async def test_connection_between_requests_is_kept(mirror: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of a head ends with the head."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    async with await Wire.open(mirror.address) as wire:
        for _ in range(4):
            wire.send("GET", "/v2/")
            assert (await wire.reply()).status == 200
        loop, later = asyncio.get_running_loop(), asyncio.Event()
        loop.call_later(0.1, later.set)
        await later.wait()
        wire.send("GET", "/v2/")
        assert (await wire.reply()).status == 200


async def test_head_of_many_long_lines_is_refused(mirror: Running) -> None:
    """Each line is within its limit, and all of them together are not: 431."""
    lines = [f"X-{number}: {'x' * 60_000}" for number in range(20)]
    head = request_head("GET", "/v2/", lines)
    async with await Wire.open(mirror.address) as wire:
        for start in range(0, len(head), 60_000):
            wire.writer.write(head[start : start + 60_000])
        reply = await wire.reply()
    assert reply.status == 431
