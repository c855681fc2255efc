"""Sending of bodies: in turns, only from the page cache, and not forever to a client that is gone."""

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
from tests.fakes.content import sample
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.page_cache import drop
from tests.running import Running
from tests.wire import Wire, get

# More than the buffers of a connection hold, so that a client that does not read stops its sender.
DATA = sample(16 * 1024 * 1024)

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
    """Return the first matching access line, as soon as it is written."""
    while not (found := [each for each in lines if each["event"] == "request" and matching(each)]):
        await get(mirror.address, "/healthz")
    return found[0]


async def test_sendfile_of_a_warm_blob_uses_no_thread(mirror: Running, blob: Digest) -> None:
    """All bytes arrive without work for a reader thread."""
    path = await asyncio.to_thread(file_of, mirror)
    await asyncio.to_thread(path.read_bytes)
    assert (await get(mirror.address, url(blob))).body == DATA
    assert not readers(mirror).executor._threads


async def test_sendfile_of_a_cold_blob_does_not_block_other_clients(mirror: Running, blob: Digest) -> None:
    """While the blob waits for the disk (a held thread), other requests are answered."""
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


async def test_sendfile_takes_turns(mirror: Running, blob: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps of a body the loop turns: a fast client does not delay other clients."""
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


async def test_sendfile_ends_when_the_client_leaves(mirror: Running, blob: Digest, lines: Lines) -> None:
    """The request ends at once, though the sender waits for the socket; its line has the bytes sent."""
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", url(blob))
        await wire.head()
    line = await line_of(mirror, lines, lambda each: each["outcome"] == "hit" and each["status"] == 200)
    assert 0 < line["bytes"] < len(DATA)


async def test_sendfile_gives_up_a_stalled_client(
    mirror: Running, blob: Digest, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel ends the connection after STALLED_SECONDS."""
    monkeypatch.setattr("mirror.web.sendfile.STALLED_SECONDS", 0.05)
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", url(blob))
        await wire.head()
        line = await line_of(mirror, lines, lambda each: each["status"] == 200 and each["outcome"] == "hit")
    assert "client left" in line["note"]


async def test_sendfile_of_a_truncated_file_falls_back_to_the_upstream(
    hub: FakeRegistry, mirror: Running, blob: Digest, lines: Lines
) -> None:
    """The upstream brings the rest; if it cannot, the body is cut short, with a note in the line."""
    await read_while_truncated(mirror, blob)
    line = await line_of(mirror, lines, lambda each: "passed through" in each.get("note", ""))
    assert (line["outcome"], line["bytes"]) == ("hit", len(DATA))
    # The bad blob is dropped, fetched again and kept.
    while (await mirror.service._store.content.look_up(Repository("docker.io", "library/x"), blob)).present:
        await get(mirror.address, "/healthz")
    assert (await get(mirror.address, url(blob))).body == DATA
    await mirror.landed(blob)
    hub.fault(Fault(status=404), blob, times=9)
    await read_while_truncated(mirror, blob, whole=False)
    line = await line_of(mirror, lines, lambda each: "cut short" in each.get("note", ""))
    assert line["outcome"] == "error"


async def read_while_truncated(mirror: Running, blob: Digest, *, whole: bool = True) -> None:
    """Request the blob, and truncate its file while the body is being sent."""
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", url(blob))
        await wire.head()
        path = await asyncio.to_thread(file_of, mirror)
        await asyncio.to_thread(truncate, path)
        body = await (wire.reader.readexactly(len(DATA)) if whole else wire.reader.read(-1))
    assert (len(body) == len(DATA)) == whole
    assert DATA.startswith(body)


async def test_sendfile_of_several_ranges_keeps_their_order(mirror: Running, blob: Digest) -> None:
    """Bytes through the transport and bytes by sendfile never overtake each other."""
    middle = len(DATA) // 2
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", url(blob), [f"Range: bytes=0-{middle - 1}, 5-9, {middle}-{len(DATA) - 100}"])
        reply = await wire.reply()
    boundary = reply.header("content-type").partition("boundary=")[2].encode()
    parts = [part.partition(b"\r\n\r\n")[2] for part in reply.body.split(b"\r\n--" + boundary)][:3]
    assert reply.complete
    assert parts == [DATA[:middle], DATA[5:10], DATA[middle : len(DATA) - 99]]


def truncate(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, 1024 * 1024)
