"""Reception of a response into a growing file: nothing waits or is lost, and nothing is written twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.memory.store import MemoryStore
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.transfer.plan import DEFAULT_LIMITS, Segment
from mirror.transfer.sources import receiving
from mirror.transfer.sources.receiving import BodyBuffer, Reception, clipped, section, skipping
from mirror.upstream.errors import Failure, UpstreamError
from mirror.util.tasks import Tasks

DATA = bytes(range(100))
CHUNK = 10


@pytest.fixture
async def writer() -> AsyncIterator[GrowingWriter]:
    store = await MemoryStore.open()
    partial, _ = await store.transfers.lock_partial(Repository("docker.io", "library/x"), Digest.of(DATA))
    assert partial is not None
    yield await store.transfers.open_growing_file(partial, len(DATA), CHUNK)
    await store.transfers.release_partial(partial)
    await store.close()


async def receive(writer: GrowingWriter, segment: Segment[str], *pieces: bytes) -> tuple[Reception, bool]:
    left = list(pieces)

    async def next_parts() -> Sequence[bytes]:
        return [left.pop(0)] if left else []

    reception, first = Reception(writer, DEFAULT_LIMITS), []
    surplus = await reception.receive(segment, next_parts, lambda: first.append(True))
    assert first == [True]
    return reception, surplus


async def test_reception_of_a_range(writer: GrowingWriter) -> None:
    reception, surplus = await receive(writer, Segment("a", 20, 40, 0.0), DATA[20:30], DATA[30:50])
    assert (reception.written, surplus) == ([Span(20, 40)], True)
    assert writer.file.received() == 20


async def test_reception_of_a_whole_blob_writes_what_is_missing(writer: GrowingWriter) -> None:
    """Bytes that are here are read past: a reader may have had them."""
    await writer.write(20, [b"x" * 15])
    reception, surplus = await receive(writer, Segment("a", 0, 100, 0.0), DATA[:33], DATA[33:])
    assert (reception.written, surplus) == ([Span(0, 20), Span(35, 100)], False)
    assert writer.file.missing() == []


async def chunks(*items: bytes | UpstreamError) -> AsyncIterator[bytes]:
    for each in items:
        if isinstance(each, UpstreamError):
            raise each
        yield each


def collecting(tasks: Tasks, *items: bytes | UpstreamError) -> tuple[BodyBuffer, "asyncio.Task[None]"]:
    buffer = BodyBuffer(chunks(*items))
    return buffer, tasks.spawn(buffer.collect(), name="collect")


async def test_body_buffer_collects_during_a_write(tasks: Tasks) -> None:
    """Chunks that are there together are written together, and then the end is an empty list."""
    buffer, task = collecting(tasks, b"ab", b"c", b"d", b"e")
    assert await buffer.next() == [b"ab"]
    assert await buffer.next() == [b"c", b"d", b"e"]
    await task
    assert await buffer.next() == []


async def test_body_buffer_first_write_is_small(tasks: Tasks) -> None:
    """Nothing more is collected until the first part is written: `next` is called again only then."""
    buffer, task = collecting(tasks, b"ab", b"c")
    assert await buffer.next() == [b"ab"]
    await asyncio.sleep(0)
    assert not task.done()
    assert await buffer.next() == [b"c"]
    await task


async def test_body_buffer_raises_after_the_received_parts(tasks: Tasks) -> None:
    """Bytes that arrived before a transfer broke are kept, and need not be requested again."""
    buffer, _ = collecting(tasks, b"ab", UpstreamError(Failure.UNREACHABLE, "broke"))
    assert await buffer.next() == [b"ab"]
    with pytest.raises(UpstreamError, match="broke"):
        await buffer.next()


async def test_body_buffer_is_bounded(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading stops while AHEAD bytes wait to be taken."""
    monkeypatch.setattr(receiving, "AHEAD", 4)
    buffer, _ = collecting(tasks, b"abcd", b"efgh", b"i")
    found = []
    while piece := await buffer.next():
        found.append(piece)
    assert found == [[b"abcd"], [b"efgh"], [b"i"]]


@pytest.mark.parametrize("count", range(8))
async def test_skipping_drops_the_first_bytes(count: int) -> None:
    """Exactly `count` bytes are left out, whatever the sizes of the chunks."""
    left = [each async for each in skipping(chunks(b"ab", b"cde", b"fg"), count)]
    assert b"".join(left) == b"abcdefg"[count:]


@pytest.mark.parametrize("length", range(9))
def test_clipping_keeps_the_first_bytes(length: int) -> None:
    """Exactly `length` bytes are kept, whatever the sizes of the parts."""
    assert b"".join(clipped([b"ab", b"cde", b"fg"], length)) == b"abcdefg"[:length]


def test_section_of_parts() -> None:
    parts = [b"abc", b"defg", b"h"]
    assert section(parts, 10, Span(11, 15)) == [b"bc", b"de"]
    assert section(parts, 10, Span(17, 20)) == [b"h"]
