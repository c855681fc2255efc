"""The chunk map: what is here, what is missing, and no byte promised that is not here."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.oci.ranges import Span
from mirror.store.partial.chunk_map import HEADER, MAGIC, ChunkMap


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "map", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def test_chunk_map_is_empty_at_first(descriptor: int) -> None:
    """One gap, nothing contiguous; a blob of no bytes is complete at once."""
    chunks = ChunkMap.create(descriptor, 25, 10)
    assert (len(chunks), chunks.contiguous(), chunks.missing()) == (3, 0, [Span(0, 25)])
    chunks.close()
    empty = ChunkMap.create(descriptor, 0, 10)
    assert (len(empty), empty.contiguous(), empty.missing(), empty.received()) == (0, 0, [], 0)
    empty.close()


def test_chunk_map_is_allocated(descriptor: int) -> None:
    """A sparse map on a full disk would kill the process at the first count that is written."""
    with closing(ChunkMap.create(descriptor, 1024**3, 64 * 1024)):
        status = os.fstat(descriptor)
        assert status.st_blocks * 512 >= status.st_size > 64 * 1024


def test_chunk_map_counts_bytes_across_chunks(descriptor: int) -> None:
    """A long write fills whole chunks and the start of the next one."""
    chunks = ChunkMap.create(descriptor, 25, 10)
    chunks.record(0, 13)
    assert [chunks.count(index) for index in range(3)] == [10, 3, 0]
    assert (chunks.contiguous(), chunks.received(), chunks.missing()) == (13, 13, [Span(13, 25)])
    chunks.record(20, 5)
    assert (chunks.contiguous(), chunks.received(), chunks.missing()) == (13, 18, [Span(13, 20)])
    chunks.record(13, 7)
    assert (chunks.contiguous(), chunks.missing()) == (25, [])
    chunks.close()


def test_chunk_map_merges_adjacent_gaps(descriptor: int) -> None:
    """One request can fill a merged gap."""
    chunks = ChunkMap.create(descriptor, 40, 10)
    chunks.record(10, 4)
    chunks.record(30, 10)
    assert chunks.missing() == [Span(0, 10), Span(14, 30)]
    chunks.close()


def test_chunk_map_counts_never_shrink(descriptor: int) -> None:
    """A source that sends bytes again makes nothing smaller."""
    chunks = ChunkMap.create(descriptor, 10, 10)
    chunks.record(0, 8)
    chunks.record(0, 3)
    assert chunks.contiguous() == 8
    chunks.close()


def test_chunk_map_refuses_a_hole_in_a_chunk(descriptor: int) -> None:
    """Chunks fill from their start; a count over a hole would promise bytes that are not here."""
    chunks = ChunkMap.create(descriptor, 10, 10)
    with pytest.raises(ValueError, match="hole in chunk 0"):
        chunks.record(5, 2)
    chunks.close()


def test_chunk_map_is_found_again(descriptor: int) -> None:
    """The map of another process is read as it was written."""
    first = ChunkMap.create(descriptor, 25, 10)
    first.record(0, 13)
    first.close()
    second = ChunkMap.load(descriptor)
    assert second is not None
    assert (second.size, second.chunk_size, second.contiguous()) == (25, 10, 13)
    second.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        HEADER.pack(b"OTHERMAP", 10, 10, 1, 0) + bytes(4),
        HEADER.pack(MAGIC, 10, 0, 1, 0) + bytes(4),
        HEADER.pack(MAGIC, 10, 10, 1, 0),
        HEADER.pack(MAGIC, 10, 10, 1, 0) + bytes(8),
        HEADER.pack(MAGIC, 2**63, 10, 1, 0) + bytes(4),
        HEADER.pack(MAGIC, 10, 10, 1, 0) + (11).to_bytes(4, "little"),
    ],
    ids=["empty", "short", "magic", "chunk size", "too short", "too long", "huge", "count"],
)
def test_chunk_map_that_is_inconsistent_is_none(descriptor: int, content: bytes) -> None:
    """The fill starts from nothing, whatever a crash or a person left there."""
    os.write(descriptor, content)
    assert ChunkMap.load(descriptor) is None
