"""Upstreams that answer wrongly: what the client sees, what is kept (nothing wrong), and that it passes.

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
    expect,
    nothing_is_left,
    nothing_wrong_is_kept,
    prepared,
    prepared_in_both,
    two_sources,
    well_again,
)
from tests.fakes.faults import Fault, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, Running, mirror_of
from tests.wire import Wire, get

pytestmark = pytest.mark.usefixtures("no_pauses")


@dataclass(frozen=True)
class Wrong:
    """One way of being wrong: the fault for a content, and what the client sees of it, by kind."""

    name: str
    fault: Callable[[bytes], Fault]
    seen: dict[str, str] = field(default_factory=dict)
    times: int = 99
    beside: dict[str, str] = field(default_factory=dict)  # where another source has it right

    def __str__(self) -> str:
        return self.name


def raw(data: bytes, *headers: str) -> Fault:
    """An answer with exactly these headers."""
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

# Of what is wrong in its last chunk, nobody has had that when it is found out.
# A manifest whose bytes are others is, by its tag, another manifest: nothing tells that it is wrong.
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
        {"large": SHORT},
    ),
    Wrong("login page", page),
    Wrong("type of a page", partial(typed, "text/html"), BLOBS_RIGHT),
    Wrong("type of a picture", partial(typed, "image/png"), ALL_RIGHT),
    Wrong("type of nothing", partial(typed, "binary/octet-stream"), ALL_RIGHT),
    Wrong("encoded", lambda data: Fault(headers={"Content-Encoding": "gzip"})),
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
async def test_from_the_only_source(fake: FakeRegistry, tmp_path: Path, wrong: Wrong, kind: str) -> None:
    """A clean error or a cut connection, nothing wrong kept, and the next request is right."""
    async with mirror_of(fake, tmp_path) as mirror:
        what = await prepared(kind, fake, mirror)
        fake.fault(wrong.fault(what.data), what.match, "GET", wrong.times)
        expect(await get(mirror.address, what.path), what, wrong.seen.get(kind, ERROR))
        await nothing_wrong_is_kept(mirror)
        well_again(fake)
        for _ in range(2):
            expect(await get(mirror.address, what.path), what, RIGHT)
            await nothing_is_left(mirror)


BESIDE = [pytest.param(wrong, kind, id=f"{kind}: {wrong}") for wrong in WRONGS for kind in BY_DIGEST]


@pytest.mark.parametrize(("wrong", "kind"), BESIDE)
async def test_from_another_source(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, wrong: Wrong, kind: str
) -> None:
    """What the upstream itself does not give rightly comes from elsewhere; the client does not notice."""
    async with two_sources(fake, other, tmp_path) as mirror:
        what = await prepared_in_both(kind, fake, other, mirror)
        fake.fault(wrong.fault(what.data), what.match, "GET", wrong.times)
        expect(await get(mirror.address, what.path), what, wrong.beside.get(kind, RIGHT))
        await nothing_wrong_is_kept(mirror)
        well_again(fake)
        expect(await get(mirror.address, what.path), what, RIGHT)
        await nothing_is_left(mirror)


@pytest.mark.parametrize(("wrong", "kind"), BESIDE)
async def test_from_the_upstream_instead(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, wrong: Wrong, kind: str
) -> None:
    """A mirror of the upstream that is wrong is passed over; one that sent other bytes is left alone."""
    async with two_sources(fake, other, tmp_path) as mirror:
        what = await prepared_in_both(kind, fake, other, mirror)
        source = preferred(mirror)
        other.fault(wrong.fault(what.data), what.match, "GET", wrong.times)
        expect(await get(mirror.address, what.path), what, wrong.beside.get(kind, RIGHT))
        assert other.requests("GET", what.match)
        await nothing_wrong_is_kept(mirror)
        if wrong.name == "other bytes":
            assert source.health.state(time.monotonic()) is BreakerState.OPEN
            lies = 'registry_mirror_source_wrong_bytes_total{source="%s",upstream="docker.io"}'
            assert await mirror.metric(lies % source.name) == 1
        well_again(other)
        expect(await get(mirror.address, what.path), what, RIGHT)
        await nothing_is_left(mirror)


def preferred(mirror: Running) -> Source:
    """The mirror of docker.io, known as faster than that itself."""
    own, source = mirror.service._upstreams["docker.io"].sources
    own.health.record_success(60.0)
    source.health.record_success(0.1)
    return source


LONG = 5 * LARGE  # more than the buffers between two sockets hold, so that a client can be behind


@asynccontextmanager
async def a_lying_upstream(
    fake: FakeRegistry, other: FakeRegistry, cache: Path, at: int
) -> AsyncIterator[tuple[Running, str, bytes]]:
    """A blob of LONG bytes that is always wrong `at` one byte in docker.io, and right in its mirror."""
    data = bytes(range(256)) * (LONG // 256)
    async with two_sources(fake, other, cache, parallel=1) as mirror:
        (layer,) = fake.add_image(X, "t", [data]).layers
        other.add_blob(f"hub/{X}", data)
        await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")
        mirror.service._upstreams["docker.io"].sources[1].health.record_success(60.0)
        fake.fault(Fault(data=flipped(data, at)), str(layer), "GET", times=99)
        yield mirror, f"/v2/docker.io/{X}/blobs/{layer}", data


@pytest.mark.parametrize("clients", [1, 9])
async def test_what_was_not_sent_yet_comes_from_the_right_source(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, clients: int
) -> None:
    """Who had nothing of the wrong part gets the rest from elsewhere, fetched once, and notices nothing."""
    at = LONG - 3 * CHUNK  # not held back
    async with a_lying_upstream(fake, other, tmp_path, at) as (mirror, path, data), AsyncExitStack() as stack:
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
        await nothing_is_left(mirror)


async def test_what_was_sent_and_wrong_is_cut(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """No client gets a right end behind a wrong beginning; its next request is right."""
    async with a_lying_upstream(fake, other, tmp_path, 7) as (mirror, path, data):
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path)
            reply = await wire.reply()
        assert (reply.status, reply.complete, reply.reset) == (200, False, False)
        assert 7 < len(reply.body) < LONG
        assert (await get(mirror.address, path)).body == data
        await nothing_is_left(mirror)
