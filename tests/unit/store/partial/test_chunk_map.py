"""The chunk map: what is here, what is missing, and no byte promised that is not here."""

import os
import random
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


def test_chunk_map_holds_the_last_chunk_back(descriptor: int) -> None:
    """Another chunk takes its place once it was released, if one is missing."""
    with closing(ChunkMap.create(descriptor, 45, 10)) as chunks:
        chunks.record(40, 5)
        assert (chunks.sendable(0), chunks.sendable(42)) == (0, 40)
        chunks.record(0, 20)
        assert (chunks.sendable(0), chunks.release_tail(), chunks.release_tail()) == (20, True, False)
        assert chunks.sendable(42) == 45
        chunks.record(30, 4)
        assert chunks.sendable(30) == 30  # held back in its place
        chunks.record(34, 6)
        assert (chunks.sendable(30), chunks.sendable(20)) == (45, 20)
        chunks.record(20, 10)
        assert [chunks.sendable(offset) for offset in (0, 20, 42)] == [0, 20, 42]
    again = ChunkMap.load(descriptor)
    assert again is not None
    with closing(again):  # after a restart too
        assert again.tail_released
        assert again.sendable(20) == 20


def test_chunk_map_tail_is_not_released_without_need(descriptor: int) -> None:
    """Only when all but the last chunk is here, or the last one is not, that one stays held back."""
    with closing(ChunkMap.create(descriptor, 25, 10)) as chunks:
        assert not chunks.release_tail()
        chunks.record(0, 20)
        assert not chunks.release_tail()
        chunks.record(20, 5)
        assert not chunks.release_tail()
        assert chunks.sendable(20) == 20


@pytest.mark.parametrize("seed", range(50))
def test_chunk_map_never_sends_all_before_verification(descriptor: int, seed: int) -> None:
    """Readers of three processes, two with old copies of the map, together lack a byte (invariant 4)."""
    chance = random.Random(seed)
    size, sent = 95, bytearray(95)
    with closing(ChunkMap.create(descriptor, size, 10)) as chunks:
        copies = [ChunkMap.snapshot(descriptor), ChunkMap.snapshot(descriptor)]
        order = list(range(10))
        chance.shuffle(order)
        while order:
            index = chance.choice(order[:2])
            span = chunks.span(index)
            length = min(chance.randint(1, 10), span.length - chunks.count(index))
            chunks.record(span.start + chunks.count(index), length)
            if chunks.count(index) == span.length:
                order.remove(index)
            if chance.random() < 0.3:
                chunks.release_tail()
            if chance.random() < 0.5:
                copies[chance.randrange(2)] = ChunkMap.snapshot(descriptor)
            for each in (chunks, *copies):
                assert each is not None
                for offset in range(size):
                    for position in range(offset, each.sendable(offset)):
                        sent[position] = 1
            assert 0 in sent
