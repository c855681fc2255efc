"""Sending: in turns, only what is in memory, and not for ever to a client that is gone."""

import asyncio
import os
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.executor import DiskExecutor
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.page_cache import drop
from tests.running import Running
from tests.wire import Wire, get

# More than the buffers of a connection hold, so that a client that does not read stops its sender.
DATA = os.urandom(1024 * 1024) * 16

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
async def blob(mirror: Running, hub: FakeRegistry) -> Digest:
    """A blob of DATA that is in the store."""
    digest = hub.add_blob("library/x", DATA)
    await get(mirror.address, url(digest), "Range: bytes=0-0")
    await mirror.landed(digest)
    return digest


def url(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


def readers(mirror: Running) -> DiskExecutor:
    return mirror.service._store.readers


def file_of(mirror: Running) -> Path:
    """The blob's file in the store."""
    folder = mirror.config.cache.dir / "blobs" / "sha256"
    (path,) = (each for each in folder.rglob("*") if each.is_file() and each.stat().st_size == len(DATA))
    return path


async def line_of(mirror: Running, lines: Lines, matching: Callable[[Any], bool]) -> Any:
    """The access line, once it is there."""
    while not (found := [each for each in lines if each["event"] == "request" and matching(each)]):
        await get(mirror.address, "/healthz")
    return found[0]


async def test_a_warm_blob_costs_no_thread(mirror: Running, blob: Digest) -> None:
    """Byte for byte, without a thread being asked to read anything."""
    path = await asyncio.to_thread(file_of, mirror)
    await asyncio.to_thread(path.read_bytes)
    assert (await get(mirror.address, url(blob))).body == DATA
    assert not readers(mirror).executor._threads


async def test_a_cold_blob_stalls_nobody(mirror: Running, blob: Digest) -> None:
    """While its bytes are waited for, which a held thread shows, everything else is answered."""
    await asyncio.to_thread(drop, await asyncio.to_thread(file_of, mirror))
    gate = Event()
    try:
        for _ in range(4):
            readers(mirror).executor.submit(gate.wait)
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", url(blob))
            assert (await wire.head()).status == 200
            assert (await get(mirror.address, "/v2/")).status == 200
            gate.set()
            assert await wire.reader.readexactly(len(DATA)) == DATA
    finally:
        gate.set()


async def test_one_client_at_a_time_gets_one_step(
    mirror: Running, blob: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps of a body the loop turns: a fast client never keeps the others waiting."""
    monkeypatch.setattr("mirror.web.sendfile.TURN_BYTES", 64 * 1024)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    reply = await get(mirror.address, url(blob))
    counting.cancel()
    assert reply.body == DATA
    assert turns >= len(DATA) // (64 * 1024)


async def test_a_client_that_leaves_in_mid_body_ends_its_request(
    mirror: Running, blob: Digest, lines: Lines
) -> None:
    """At once, though the sender was waiting for the socket; what was sent is in its line."""
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", url(blob))
        await wire.head()
    line = await line_of(mirror, lines, lambda each: each["outcome"] == "hit" and each["status"] == 200)
    assert 0 < line["bytes"] < len(DATA)


async def test_a_client_that_takes_nothing_counts_as_gone(
    mirror: Running, blob: Digest, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives it up after STALLED_SECONDS."""
    monkeypatch.setattr("mirror.web.sendfile.STALLED_SECONDS", 0.05)
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", url(blob))
        await wire.head()
        line = await line_of(mirror, lines, lambda each: each["status"] == 200 and each["outcome"] == "hit")
    assert "client left" in line["note"]


async def test_a_file_that_got_shorter_is_made_good(
    hub: FakeRegistry, mirror: Running, blob: Digest, lines: Lines
) -> None:
    """The upstream brings the rest; where it cannot, the body is cut short, and that is said."""
    await shortened(mirror, blob)
    line = await line_of(mirror, lines, lambda each: "passed through" in each.get("note", ""))
    assert (line["outcome"], line["bytes"]) == ("hit", len(DATA))
    # What was found bad is fetched anew, and kept.
    while (await mirror.service._store.look_up(Repository("docker.io", "library/x"), blob)).present:
        await get(mirror.address, "/healthz")
    assert (await get(mirror.address, url(blob))).body == DATA
    await mirror.landed(blob)
    hub.fault(Fault(status=404), blob, times=9)
    await shortened(mirror, blob, whole=False)
    line = await line_of(mirror, lines, lambda each: "cut short" in each.get("note", ""))
    assert line["outcome"] == "error"


async def shortened(mirror: Running, blob: Digest, *, whole: bool = True) -> None:
    """Ask for the blob, and shorten its file while it is being sent."""
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", url(blob))
        await wire.head()
        path = await asyncio.to_thread(file_of, mirror)
        await asyncio.to_thread(shorten, path)
        body = await (wire.reader.readexactly(len(DATA)) if whole else wire.reader.read(-1))
    assert (len(body) == len(DATA)) == whole
    assert DATA.startswith(body)


async def test_many_ranges_keep_their_order(mirror: Running, blob: Digest) -> None:
    """What is written through the transport and what beside it never overtake each other."""
    middle = len(DATA) // 2
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", url(blob), [f"Range: bytes=0-{middle - 1}, 5-9, {middle}-{len(DATA) - 100}"])
        reply = await wire.reply()
    boundary = reply.header("content-type").partition("boundary=")[2].encode()
    parts = [part.partition(b"\r\n\r\n")[2] for part in reply.body.split(b"\r\n--" + boundary)][:3]
    assert reply.complete
    assert parts == [DATA[:middle], DATA[5:10], DATA[middle : len(DATA) - 99]]


def shorten(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, 1024 * 1024)
