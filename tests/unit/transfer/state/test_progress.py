"""Progress of a transfer."""

from typing import Any

from mirror.transfer.plan import Segment
from mirror.transfer.state.progress import TransferProgress
from tests.unit.transfer.test_blob_source import MemorySource


def segment(source: MemorySource, start: int, offset: int) -> Segment[Any]:
    found: Segment[Any] = Segment(source, start, start + 100, 0.0)
    found.offset = offset
    return found


def test_progress_counts_by_source() -> None:
    """Bytes of ended segments and of running ones; connections of the latter, while the transfer runs."""
    one, other = MemorySource("one", None), MemorySource("other", None)
    progress = TransferProgress()
    progress.segments = running = [segment(one, 0, 30), segment(one, 100, 110), segment(other, 200, 205)]
    assert progress.connections == {"one": 2, "other": 1}
    assert progress.note_ended(running.pop(0)) == 30
    assert progress.received_from == {"one": 40, "other": 5}
    progress.ended = True
    assert (progress.connections, progress.received_from) == ({}, {"one": 30})
    assert (progress.received, progress.size) == (0, None)
