"""The chunk map compared with a set of bytes, over any legal order of writes."""

import os
import tempfile

from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.ranges import Span
from mirror.store.partial.chunk_map import HEADER, MAGIC, ChunkMap


@given(st.integers(0, 60), st.integers(1, 13), st.data())
def test_chunk_map_agrees_with_a_set_of_bytes(size: int, chunk_size: int, data: st.DataObject) -> None:
    """Writes continue some chunk, in any order and over any number of chunks."""
    with tempfile.TemporaryFile() as file:
        chunks = ChunkMap.create(file.fileno(), size, chunk_size)
        here: set[int] = set()
        for _ in range(data.draw(st.integers(0, 12))):
            gaps = chunks.missing()
            if not gaps:
                break
            starts = {each.start for each in gaps} | {
                index * chunk_size for index in range(len(chunks)) if chunks.count(index) == 0
            }
            start = data.draw(st.sampled_from(sorted(starts)))
            length = data.draw(st.integers(1, size - start))
            chunks.record(start, length)
            here |= set(range(start, start + length))
            # Whole chunks only from their start: the model must not have states that a count cannot express.
            assert chunks.received() == len(here)
            contiguous = next((n for n in range(size) if n not in here), size)
            assert chunks.contiguous() == contiguous
            assert {n for gap in chunks.missing() for n in range(gap.start, gap.stop)} == set(
                range(size)
            ) - here
        left = chunks.missing()
        chunks.close()
        again = ChunkMap.load(file.fileno())
        assert again is not None
        assert again.missing() == left
        again.close()


@given(st.one_of(st.binary(max_size=80), st.builds(lambda tail: MAGIC + tail, st.binary(max_size=60))))
def test_chunk_map_load_accepts_any_file(content: bytes) -> None:
    """Any content loads as a map or as None, without an exception or a count beyond its chunk."""
    with tempfile.TemporaryFile() as file:
        os.write(file.fileno(), content)
        chunks = ChunkMap.load(file.fileno())
        if chunks is None:
            return
        assert len(content) >= HEADER.size
        assert all(isinstance(gap, Span) and gap.length > 0 for gap in chunks.missing())
        chunks.close()
