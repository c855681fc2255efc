"""Readers: one interface for complete and for growing blobs."""

import io
from typing import cast

import pytest

from mirror.cache.readers import BlobReader, Fallback, StoredReader
from mirror.store.blobs.blobs import OpenBlob
from mirror.store.errors import ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.transfer.passthrough import PassThroughBlob

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
