"""Reception of a response into a growing file."""

from collections.abc import AsyncIterator, Sequence

import pytest

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.memory.store import MemoryStore
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.transfer.plan import DEFAULT_LIMITS, Segment
from mirror.transfer.sources.receiving import Reception

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
