"""Readers: one interface for complete and for growing blobs."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from mirror.cache.readers import BlobReader, Fallback, GrowingReader, StoredReader
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.blobs.entries import OpenBlob
from mirror.store.errors import ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.partial.remote_view import RemoteView
from mirror.transfer.passthrough import PassThroughBlob

MIB = 1024 * 1024

# The blob that would bring the rest from the upstream; no test here requests a byte of it.
PASSED = cast(PassThroughBlob, object())


async def test_stored_blob_is_readable_to_its_end() -> None:
    """A stored blob is readable at once, and its file is closed with the reader."""
    file = io.BytesIO(b"0123456789")
    reader: BlobReader = StoredReader(OpenBlob(file, 10), DiskExecutor(1), Fallback(PASSED))
    assert (reader.read_ahead(4).file, reader.read_ahead(4).stop) == (file, 4)
    assert (reader.size, await reader.wait_readable(0), await reader.wait_readable(9)) == (10, 10, 10)
    reader.close()
    assert file.closed


def test_fallback_reports_a_failing_disk_but_not_a_shutdown() -> None:
    """The upstream brings the rest after a disk error; a mirror that is stopping raises its own error."""
    errors: list[str] = []
    fallback = Fallback(PASSED, lambda: errors.append("disk"))
    assert fallback.continue_from_upstream(StoreError("no")) is PASSED
    with pytest.raises(ShuttingDown):
        fallback.continue_from_upstream(ShuttingDown("bye"))
    assert errors == ["disk"]


@pytest.fixture
def rewritten(tmp_path: Path) -> Iterator[GrowingFile]:
    """A file that another process began again after a reader here had wrong bytes of it."""
    digest, size, chunk = Digest.of(b"x"), 8 * MIB, MIB
    partial = Partial.lock(digest, tmp_path)
    assert partial is not None
    partial.allocate(size, chunk).record(0, chunk)
    remote = RemotePartial.open(digest, tmp_path)
    assert remote is not None
    view = RemoteView(remote, Demand(whole=True))
    view.file.unread = False
    partial.allocate(size, chunk).record(0, chunk)
    assert not view.update(remote.refresh())
    yield view.file
    remote.close()
    partial.release()


def test_growing_reader_does_not_continue_a_rewritten_file(rewritten: GrowingFile) -> None:
    """Wrong bytes with a right rest would be a complete wrong blob, and the file no longer shows them."""
    file = rewritten.open_reader()
    assert file is not None
    reader, lost = (
        GrowingReader(rewritten, file, DiskExecutor(1), Fallback(PASSED)),
        StoreError("thrown away"),
    )
    with pytest.raises(StoreError, match="thrown away"):
        reader.continue_from_upstream(lost, Span(0, rewritten.size), 100)
    reader.close()
