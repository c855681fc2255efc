"""Short ranges of stored blobs: the fast path sends what the full path would send."""

import asyncio
import random
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.web.fastpath import range_cache
from mirror.web.fastpath.range_cache import LONGEST_RANGE, RangeCache
from tests.fakes.registry import FakeRegistry
from tests.page_cache import drop
from tests.running import Running
from tests.wire import Reply, Wire, get, request_head

DATA = random.Random(3).randbytes(5 * 1024 * 1024)


@pytest.fixture
async def blob(mirror: Running, hub: FakeRegistry) -> Digest:
    """A blob of DATA that is in the store."""
    digest = hub.add_blob("library/x", DATA)
    await get(mirror.address, url(digest))
    await mirror.landed(digest)
    return digest


def url(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


def ranges(mirror: Running) -> RangeCache:
    """Return the range cache of the running server, which flushes its records before a scrape."""
    flush: Any = mirror.service.metrics.requests.flush_pending
    found = flush.__self__.ranges
    assert isinstance(found, RangeCache)
    return found


async def ask(wire: Wire, digest: Digest, *headers: str) -> Reply:
    wire.send("GET", url(digest), headers)
    return await wire.reply()


def as_range(first: int, last: int) -> str:
    return f"Range: bytes={first}-{last}"


def drop_from_memory(mirror: Running) -> None:
    folder = mirror.config.cache.dir / "blobs" / "sha256"
    (path,) = (each for each in folder.rglob("*") if each.is_file() and each.stat().st_size == len(DATA))
    drop(path)


async def known(mirror: Running, wire: Wire, digest: Digest, *headers: str) -> None:
    """Have the full path answer until the blob's file is kept."""
    while not len(ranges(mirror)):
        await ask(wire, digest, *headers, as_range(0, 9))


def fast_answers(mirror: Running) -> int:
    return ranges(mirror).answered


async def test_range_cache_answers_from_the_third_request_on(mirror: Running, blob: Digest) -> None:
    """Any short range is then sent from the open file, on every connection, with the full path's head."""
    async with await Wire.open(mirror.address) as wire, await Wire.open(mirror.address) as other:
        slow = await ask(wire, blob, as_range(7, 1030))
        await ask(wire, blob, as_range(0, 0))
        assert fast_answers(mirror) == 0
        for client in (wire, other):
            fast = await ask(client, blob, as_range(7, 1030))
            assert (fast.status, fast.body) == (206, DATA[7:1031])
            without_date = [each for each in fast.raw_headers if each[0] != "date"]
            assert without_date == [each for each in slow.raw_headers if each[0] != "date"]
        assert fast_answers(mirror) == 2


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (0, 0),
        (len(DATA) - 1, len(DATA) - 1),
        (len(DATA) - 5, len(DATA) + 100),
        (len(DATA) - 5, 999_999_999_999_999),
        (4096, 4096 + LONGEST_RANGE - 1),
    ],
)
async def test_range_cache_cuts_as_the_full_path(
    mirror: Running, blob: Digest, first: int, last: int
) -> None:
    """Ranges at both ends of the blob, and beyond its end."""
    async with await Wire.open(mirror.address) as wire:
        slow = await ask(wire, blob, "X-Other: 1", as_range(first, last))
        await known(mirror, wire, blob)
        fast = await ask(wire, blob, as_range(first, last))
        assert fast_answers(mirror) == 1
    assert (fast.status, fast.body) == (slow.status, slow.body) == (206, DATA[first : last + 1])
    assert fast.header("Content-Range") == slow.header("Content-Range")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"Range: bytes={len(DATA)}-{len(DATA) + 1}"], 416),
        (["Range: bytes=9-3"], 206),
        (["Range: bytes=-5"], 206),
        (["Range: bytes=5-"], 206),
        ([f"Range: bytes=0-{LONGEST_RANGE}"], 206),
        (["Range: bytes=0-1,3-4"], 206),
        (["Range: bytes=0-9", 'If-Range: "other"'], 200),
        (["Range: bytes=0-9", "range: bytes=3-4"], 206),
        (["Range: bytes=0-9", "X-Other: 1"], 206),
        (["Range: chars=0-9"], 200),
        ([], 200),
    ],
)
async def test_range_cache_leaves_all_other_requests_to_the_full_path(
    mirror: Running, blob: Digest, lines: list[str], status: int
) -> None:
    """Other forms of ranges, conditions and other heads are answered as before."""
    async with await Wire.open(mirror.address) as wire:
        expected = await ask(wire, blob, "X-Before: 1", *lines)
        await known(mirror, wire, blob)
        reply = await ask(wire, blob, *lines)
    assert fast_answers(mirror) == 0
    assert reply.status == expected.status
    if status != 206 or "bytes=9-3" not in "".join(lines):
        assert reply.status == status
    if "multipart" not in reply.headers.get("content-type", ""):
        assert reply.body == expected.body


async def test_range_cache_ends_with_its_content(mirror: Running, blob: Digest) -> None:
    """After a removal, and when the store has closed the file, the full path is asked again."""
    async with await Wire.open(mirror.address) as wire:
        await known(mirror, wire, blob)
        mirror.service._store.folder.epoch.note_removal()
        assert (await ask(wire, blob, as_range(0, 9))).body == DATA[:10]
        assert fast_answers(mirror) == 0
        await ask(wire, blob, as_range(0, 9))
        await ask(wire, blob, as_range(0, 9))
        assert fast_answers(mirror) == 1
        mirror.service._store._memory.close_files()
        assert (await ask(wire, blob, as_range(0, 9))).body == DATA[:10]
        assert fast_answers(mirror) == 1


async def test_range_cache_ends_with_a_right(mirror: Running, blob: Digest) -> None:
    """The full path decides again when rights have changed."""
    async with await Wire.open(mirror.address) as wire:
        await known(mirror, wire, blob)
        mirror.service._store.folder.epoch.note_access_change()
        assert (await ask(wire, blob, as_range(0, 9))).body == DATA[:10]
        assert fast_answers(mirror) == 0


async def test_range_cache_reads_nothing_from_the_disk(mirror: Running, blob: Digest) -> None:
    """Bytes that are not in the page cache take the full path, which reads them in a thread."""
    async with await Wire.open(mirror.address) as wire:
        await known(mirror, wire, blob)
        await asyncio.to_thread(drop_from_memory, mirror)
        assert (await ask(wire, blob, as_range(3_000_000, 3_000_999))).body == DATA[3_000_000:3_001_000]
        assert fast_answers(mirror) == 0
        assert (await ask(wire, blob, as_range(3_000_000, 3_000_999))).body == DATA[3_000_000:3_001_000]
        assert fast_answers(mirror) == 1


async def test_range_cache_leaves_the_same_traces(mirror: Running, blob: Digest) -> None:
    """Requests and bytes are counted as those of the full path."""
    hits = mirror.service.metrics.requests.of("blob", "hit")
    async with await Wire.open(mirror.address) as wire:
        await known(mirror, wire, blob)
        requests, sent = hits.requests, hits.bytes
        await ask(wire, blob, as_range(0, 9))
        await ask(wire, blob, as_range(0, 99))
    mirror.service.metrics.requests.flush_pending()
    assert (hits.requests - requests, hits.bytes - sent) == (2, 110)


async def test_range_cache_knows_a_bounded_number_of_blobs(
    mirror: Running, blob: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blob asked for least recently is forgotten; after `close` the full path answers."""
    monkeypatch.setattr(range_cache, "MOST_BLOBS", 2)
    async with await Wire.open(mirror.address) as wire:
        for name in "abc":
            for _ in range(3):
                await ask(wire, blob, f"X-Client: {name}", as_range(0, 9))
        assert len(ranges(mirror)) == 2
        answered = fast_answers(mirror)
        ranges(mirror).close()
        assert (await ask(wire, blob, "X-Client: c", as_range(0, 9))).body == DATA[:10]
    assert fast_answers(mirror) == answered


async def test_range_behind_the_end_of_a_head_is_no_part_of_it(mirror: Running, blob: Digest) -> None:
    """Two heads in one segment, which would be the known one with its range if it were taken out."""
    async with await Wire.open(mirror.address) as wire:
        await known(mirror, wire, blob)
        head = request_head("GET", url(blob), [])
        wire.writer.write(head[:-2] + b"\r\nRange: bytes=0-9\r\n")
        reply = await wire.reply()
        assert (reply.status, len(reply.body)) == (200, len(DATA))
