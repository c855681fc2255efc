"""Upstreams with wrong responses: what the client sees, what is kept (nothing wrong), and recovery.

Each scenario is one way of being wrong, for a manifest by tag and by digest, a small blob (filled in one
piece, `transfer/small_fill.py`) and a large one (`transfer/fill.py`): first from an upstream that has no
other source, then with another source beside it, which gives the right bytes without the client noticing.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from mirror.upstream.health import BreakerState
from mirror.upstream.source import Source
from tests.contract.integrity import (
    BLOBS,
    BY_DIGEST,
    ERROR,
    KINDS,
    RIGHT,
    SHORT,
    X,
    assert_all_is_stored,
    assert_nothing_wrong_is_kept,
    expect,
    prepared,
    prepared_in_both,
    stop_faults,
    two_sources,
)
from tests.fakes.faults import Fault, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, Running, mirror_of
from tests.wire import Wire, get

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pauses")]


@dataclass(frozen=True)
class Wrong:
    """One way of being wrong: the fault for a content, and what the client sees, by kind."""

    name: str
    fault: Callable[[bytes], Fault]
    seen: dict[str, str] = field(default_factory=dict)
    times: int = 99
    beside: dict[str, str] = field(default_factory=dict)  # seen where another source is right

    def __str__(self) -> str:
        return self.name


def raw(data: bytes, *headers: str) -> Fault:
    """A response with exactly these headers."""
    lines = "\r\n".join(("HTTP/1.1 200 OK", *headers))
    return Fault(raw=lines.encode() + b"\r\n\r\n" + data)


def other_bytes(data: bytes) -> Fault:
    return Fault(data=flipped(data, len(data) // 2))


def page(data: bytes) -> Fault:
    return Fault(status=200, body=b"<html>Sign in</html>", headers={"Content-Type": "text/html"})


def typed(kind: str, data: bytes) -> Fault:
    return Fault(headers={"Content-Type": kind})


def announced(length: int, data: bytes) -> Fault:
    return raw(data, f"Content-Length: {length}", "Content-Type: application/json")


ALL_RIGHT = dict.fromkeys(KINDS, RIGHT)
BLOBS_RIGHT = dict.fromkeys(BLOBS, RIGHT)

# No client has received the last chunk of a blob when an error in that chunk is detected.
# A manifest with other bytes is, by its tag, another manifest: nothing shows that it is wrong.
WRONGS = [
    Wrong("other bytes", lambda data: Fault(data=flipped(data, len(data) - 1)), {"large": SHORT}),
    Wrong("one byte less", lambda data: Fault(data=data[:-1])),
    Wrong("one byte more", lambda data: Fault(data=data + b"!")),
    Wrong("nothing", lambda data: Fault(data=b"")),
    Wrong("cut in the middle", lambda data: Fault(cut_at=len(data) // 2), {"large": RIGHT}),
    Wrong("reset in the middle", lambda data: Fault(reset_at=len(data) // 2), {"large": RIGHT}, times=3),
    Wrong("cut without a length", lambda data: Fault(cut_at=9, chunked=True), {"large": RIGHT}, times=2),
    Wrong("ended without a length", lambda data: raw(data[:9]), {"large": RIGHT}, times=2),
    Wrong("less announced", lambda data: announced(len(data) - 3, data)),
    Wrong("more sent", lambda data: announced(len(data), data + b"HTTP/1.1 200 OK"), ALL_RIGHT),
    Wrong("100 MB announced", lambda data: announced(100_000_000, data + b" " * LARGE)),
    Wrong(
        "100 MB without a length",
        lambda data: raw(data + b" " * 2 * LARGE, "Connection: close"),
        BLOBS_RIGHT,
    ),
    Wrong("login page", page),
    Wrong("type of a page", partial(typed, "text/html"), BLOBS_RIGHT),
    Wrong("type of a picture", partial(typed, "image/png"), ALL_RIGHT),
    Wrong("type of nothing", partial(typed, "binary/octet-stream"), ALL_RIGHT),
    Wrong("encoded", lambda data: Fault(headers={"Content-Encoding": "gzip"}), ALL_RIGHT),
    Wrong("redirected in a circle", lambda data: Fault(status=302, headers={"Location": "?again"})),
    Wrong("redirected to nowhere", lambda data: Fault(status=307, headers={"Location": "ftp://x/"})),
    Wrong("not HTTP", lambda data: Fault(raw=b"220 mail.test ESMTP\r\n")),
    Wrong("too many headers", lambda data: raw(data, *(f"X-{number}: x" for number in range(1000)))),
    Wrong("a header without end", lambda data: raw(b"", "X: " + "x" * 300_000)),
]
CASES = [
    pytest.param(wrong, kind, id=f"{kind}: {wrong}")
    for wrong in WRONGS
    for kind in (BY_DIGEST if wrong.name == "other bytes" else KINDS)
]


@pytest.mark.parametrize(("wrong", "kind"), CASES)
async def test_integrity_with_one_source(fake: FakeRegistry, tmp_path: Path, wrong: Wrong, kind: str) -> None:
    """A clean error or a cut connection, nothing wrong kept, and the next request is right."""
    async with mirror_of(fake, tmp_path) as mirror:
        content = await prepared(kind, fake, mirror)
        fake.fault(wrong.fault(content.data), content.match, "GET", wrong.times)
        expect(await get(mirror.address, content.path), content, wrong.seen.get(kind, ERROR))
        await assert_nothing_wrong_is_kept(mirror)
        stop_faults(fake)
        for _ in range(2):
            expect(await get(mirror.address, content.path), content, RIGHT)
            await assert_all_is_stored(mirror)


BESIDE = [pytest.param(wrong, kind, id=f"{kind}: {wrong}") for wrong in WRONGS for kind in BY_DIGEST]


@pytest.mark.parametrize(("wrong", "kind"), BESIDE)
async def test_integrity_with_another_source(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, wrong: Wrong, kind: str
) -> None:
    """Content that the upstream itself sends wrong comes from elsewhere; the client does not notice."""
    async with two_sources(fake, other, tmp_path) as mirror:
        content = await prepared_in_both(kind, fake, other, mirror)
        fake.fault(wrong.fault(content.data), content.match, "GET", wrong.times)
        expect(await get(mirror.address, content.path), content, wrong.beside.get(kind, RIGHT))
        await assert_nothing_wrong_is_kept(mirror)
        stop_faults(fake)
        expect(await get(mirror.address, content.path), content, RIGHT)
        await assert_all_is_stored(mirror)


@pytest.mark.parametrize(("wrong", "kind"), BESIDE)
async def test_integrity_with_a_wrong_mirror(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, wrong: Wrong, kind: str
) -> None:
    """A mirror that is wrong is passed over; after other bytes it is not used for a while."""
    async with two_sources(fake, other, tmp_path) as mirror:
        content = await prepared_in_both(kind, fake, other, mirror)
        source = preferred(mirror)
        other.fault(wrong.fault(content.data), content.match, "GET", wrong.times)
        expect(await get(mirror.address, content.path), content, wrong.beside.get(kind, RIGHT))
        assert other.requests("GET", content.match)
        await assert_nothing_wrong_is_kept(mirror)
        if wrong.name == "other bytes":
            assert source.health.state(time.monotonic()) is BreakerState.OPEN
            metric = 'registry_mirror_source_wrong_bytes_total{source="%s",upstream="docker.io"}'
            assert await mirror.metric(metric % source.name) == 1
        stop_faults(other)
        expect(await get(mirror.address, content.path), content, RIGHT)
        await assert_all_is_stored(mirror)


def preferred(mirror: Running) -> Source:
    """Make the mirror of docker.io faster than docker.io itself, and return it."""
    own, source = mirror.service._upstreams["docker.io"].sources
    own.health.record_success(60.0)
    source.health.record_success(0.1)
    return source


LONG = 5 * LARGE  # more than the buffers between two sockets hold, so that a client can fall behind


@asynccontextmanager
async def corrupt_upstream(
    fake: FakeRegistry, other: FakeRegistry, cache: Path, at: int
) -> AsyncIterator[tuple[Running, str, bytes]]:
    """A blob of LONG bytes that always has one wrong byte, `at`, in docker.io, and is right in its mirror."""
    data = bytes(range(256)) * (LONG // 256)
    async with two_sources(fake, other, cache, parallel=1) as mirror:
        (layer,) = fake.add_image(X, "t", [data]).layers
        other.add_blob(f"hub/{X}", data)
        await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")
        mirror.service._upstreams["docker.io"].sources[1].health.record_success(60.0)
        fake.fault(Fault(data=flipped(data, at)), str(layer), "GET", times=99)
        yield mirror, f"/v2/docker.io/{X}/blobs/{layer}", data


@pytest.mark.parametrize("clients", [1, 9])
async def test_integrity_of_clients_before_the_wrong_byte(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, clients: int
) -> None:
    """A client that has not received the wrong part gets the rest from elsewhere, fetched once."""
    at = LONG - 3 * CHUNK  # not held back
    async with corrupt_upstream(fake, other, tmp_path, at) as (mirror, path, data), AsyncExitStack() as stack:
        wires = []
        for _ in range(clients):
            wire = await stack.enter_async_context(await Wire.open(mirror.address))
            wire.send("GET", path)
            assert (await wire.head()).status == 200
            assert await wire.reader.readexactly(CHUNK) == data[:CHUNK]
            wires.append(wire)
        while mirror.service._upstreams["docker.io"].own.health.trusted(time.monotonic()):
            await get(mirror.address, "/healthz")
        for wire in wires:
            assert await wire.reader.readexactly(LONG - CHUNK) == data[CHUNK:]
        received = await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')
        assert 2 * LONG < received < 2 * LONG + CHUNK
        await assert_all_is_stored(mirror)


async def test_integrity_of_clients_behind_the_wrong_byte(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """No client gets a right end behind a wrong beginning; its next request is right."""
    async with corrupt_upstream(fake, other, tmp_path, 7) as (mirror, path, data):
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path)
            reply = await wire.reply()
        assert (reply.status, reply.complete, reply.reset) == (200, False, False)
        assert 7 < len(reply.body) < LONG
        assert (await get(mirror.address, path)).body == data
        await assert_all_is_stored(mirror)
