"""Whole blobs of known heads: the fast path sends what the full path would send."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from mirror.config.schema import LogSettings
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.util.log import configure
from mirror.web.fastpath import known_blobs
from mirror.web.fastpath.known_blobs import KnownBlobs
from tests.fakes.content import sample
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Reply, Wire, get, request_head

# More than the buffers of a connection hold, so that a client that does not read stops its sender.
DATA = sample(16 * 1024 * 1024)


async def stored(mirror: Running, hub: FakeRegistry) -> Digest:
    """Return a blob of DATA that is in the store, and that no whole request has asked for from there."""
    digest = hub.add_blob("library/x", DATA)
    await get(mirror.address, url(digest), "Range: bytes=0-9")
    await mirror.landed(digest)
    return digest


@pytest.fixture
async def blob(mirror: Running, hub: FakeRegistry) -> Digest:
    return await stored(mirror, hub)


@pytest.fixture
def lines(own_logging: None) -> StringIO:
    log = StringIO()
    configure(LogSettings(format="json"), log)
    return log


def url(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


def known(mirror: Running) -> KnownBlobs:
    """Return the known blobs of the running server."""
    flush: Any = mirror.service.metrics.requests.flush_pending
    found = flush.__self__.blobs
    assert isinstance(found, KnownBlobs)
    return found


async def ask(wire: Wire, digest: Digest, *headers: str) -> Reply:
    wire.send("GET", url(digest), headers)
    return await wire.reply()


async def learn(mirror: Running, wire: Wire, digest: Digest) -> Reply:
    """Ask until the blob is sent from what is known; return the full path's first answer.

    Who asks for all of a blob again waits for a proof of it first, on the full path.
    """
    slow = await ask(wire, digest)
    while not known(mirror).sent:
        await ask(wire, digest)
    return slow


def requests_of(log: StringIO) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in lines if line["event"] == "request" and line["status"] == 200]


async def test_known_blob_is_sent_as_by_the_full_path(mirror: Running, blob: Digest, lines: StringIO) -> None:
    """The full path's head and bytes, on every connection, and an access line with the same fields."""
    async with await Wire.open(mirror.address) as wire, await Wire.open(mirror.address) as other:
        slow = await learn(mirror, wire, blob)
        lines.truncate(lines.seek(0))
        assert (await ask(wire, blob, "X: of the full path")).body == DATA
        for number, client in enumerate((wire, other, wire), 2):
            fast = await ask(client, blob)
            assert (fast.status, fast.body == DATA) == (200, True)
            without_date = [each for each in fast.raw_headers if each[0] != "date"]
            assert without_date == [each for each in slow.raw_headers if each[0] != "date"]
            assert known(mirror).sent == number
        assert (await get(mirror.address, "/healthz")).status == 200
    first, *others = requests_of(lines)
    assert [line.keys() for line in others] == [first.keys()] * 3
    varying = ("id", "timestamp", "first_byte_ms", "total_ms")
    assert [{**line, **{name: first[name] for name in varying}} for line in others] == [first] * 3
    assert len({line["id"] for line in (first, *others)}) == 4
    hits = await mirror.metric('registry_mirror_requests_total{kind="blob",outcome="hit"}')
    await get(mirror.address, url(blob))
    assert await mirror.metric('registry_mirror_requests_total{kind="blob",outcome="hit"}') == hits + 1


async def test_known_blob_is_for_the_identical_head(mirror: Running, blob: Digest) -> None:
    """Other headers, conditions, ranges and the last request of a connection take the full path."""
    async with await Wire.open(mirror.address) as wire:
        await learn(mirror, wire, blob)
        assert (await ask(wire, blob, "X-Other: 1")).body == DATA
        assert (await ask(wire, blob, "Range: bytes=5-100000")).body == DATA[5:100001]
        wire.send("GET", url(blob), [f'If-None-Match: "{blob}"'])
        assert (await wire.reply()).status == 304
        assert (await ask(wire, blob, "Connection: close")).body == DATA
    assert known(mirror).sent == 1


@pytest.mark.parametrize("change", ["note_removal", "note_access_change"])
async def test_known_blob_ends_with_a_removal_and_with_a_right(
    mirror: Running, blob: Digest, change: str
) -> None:
    """The next request takes the full path, which looks."""
    async with await Wire.open(mirror.address) as wire:
        await learn(mirror, wire, blob)
        getattr(mirror.service._store.folder.epoch, change)()
        assert (await ask(wire, blob)).body == DATA
        assert known(mirror).sent == 1


async def test_known_blob_that_is_not_here_as_it_was_takes_the_full_path(
    mirror: Running, hub: FakeRegistry, blob: Digest
) -> None:
    """A blob that has left the store unnoticed is fetched again; what came behind the request is answered."""
    async with await Wire.open(mirror.address) as wire:
        await learn(mirror, wire, blob)
        store = mirror.service._store
        await store.executor.run(store.folder.blobs.remove, blob)
        store._memory.close_files()
        wire.writer.write(request_head("GET", url(blob)))
        while not next(iter(connections(mirror)))._busy:  # noqa: ASYNC110  # a flag has no event
            await asyncio.sleep(0)
        wire.writer.write(request_head("GET", "/healthz"))
        assert (await wire.reply()).body == DATA
        assert (await wire.reply()).status == 200
    assert known(mirror).sent == 1


async def test_known_blob_whose_opening_is_refused_takes_the_full_path(mirror: Running, blob: Digest) -> None:
    """An origin may answer with an error of the registry: the client must not wait for nothing."""

    async def refuse(*_: object) -> None:
        raise RegistryError(Code.BLOB_UNKNOWN, "gone")

    async with await Wire.open(mirror.address) as wire:
        await learn(mirror, wire, blob)
        known(mirror).open = refuse
        async with asyncio.timeout(30):
            assert (await ask(wire, blob)).body == DATA


def connections(mirror: Running) -> list[Any]:
    import gc

    from mirror.web.protocol import RequestProtocol

    return [each for each in gc.get_objects() if isinstance(each, RequestProtocol) and each.transport]


async def test_requests_behind_a_known_blob_are_answered_in_order(mirror: Running, blob: Digest) -> None:
    """Pipelined requests wait until the body is sent, known ones too."""
    async with await Wire.open(mirror.address) as wire:
        await learn(mirror, wire, blob)
        wire.writer.write(request_head("GET", url(blob)))
        assert (await wire.head()).status == 200
        wire.writer.write(request_head("GET", "/v2/") + request_head("GET", url(blob)))
        assert await wire.reader.readexactly(len(DATA)) == DATA
        assert (await wire.reply()).body == b"{}"
        assert (await wire.reply()).body == DATA
    assert known(mirror).sent == 2


async def test_client_that_leaves_in_mid_blob_ends_the_response(
    mirror: Running, blob: Digest, lines: StringIO
) -> None:
    """The access line has the bytes that were sent, and the blob is no longer in use."""
    async with await Wire.open(mirror.address) as wire:
        await learn(mirror, wire, blob)
        before = len(requests_of(lines))
        wire.send("GET", url(blob))
        await wire.head()
        wire.reset()
    while len(requests_of(lines)) == before:
        await get(mirror.address, "/healthz")
    assert known(mirror).sent == 2
    assert 0 < requests_of(lines)[-1]["bytes"] < len(DATA)
    assert not mirror.service._store._last_use.reading


async def test_drain_waits_for_known_blobs(mirror: Running, blob: Digest) -> None:
    """The body is sent to its end, and then the connection ends."""
    async with await Wire.open(mirror.address) as wire:
        await learn(mirror, wire, blob)
        wire.send("GET", url(blob))
        await wire.head()
        mirror.stop.set()
        assert await wire.reader.readexactly(len(DATA)) == DATA
        assert await wire.reader.read() == b""
    assert known(mirror).sent == 2


async def test_known_blobs_are_bounded(
    mirror: Running, blob: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heads used last are known."""
    monkeypatch.setattr(known_blobs, "MOST_BLOBS", 2)
    async with await Wire.open(mirror.address) as wire:
        for number in range(4):
            await ask(wire, blob, f"X: {number}")
        assert len(known(mirror)) == 2


@pytest.fixture
async def limited(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    limits = [{"name": "some", "networks": ["127.0.0.1"], "bandwidth": "1GB"}]
    async with serving(configured(tmp_path / "cache", {"docker.io": hub.url}, limits=limits)) as running:
        yield running


async def test_no_blob_is_known_where_there_are_limits(limited: Running, hub: FakeRegistry) -> None:
    """The full path keeps them while a body is sent."""
    digest = await stored(limited, hub)
    async with await Wire.open(limited.address) as wire:
        for _ in range(2):
            assert (await ask(wire, digest)).body == DATA
    assert len(known(limited)) == 0
