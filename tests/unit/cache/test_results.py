"""Readers: the same to whoever sends, whether the blob is whole or growing."""

import io
from typing import cast

import pytest

from mirror.cache.results import BlobReader, Fallback, StoredReader
from mirror.store.blobs.blobs import OpenBlob
from mirror.store.errors import ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.transfer.passthrough import PassThroughBlob

# Who would bring the rest; nobody asks it for anything here.
PASSED = cast(PassThroughBlob, object())


async def test_a_stored_blob_is_readable_to_its_end() -> None:
    """At once, and closed by whoever had it."""
    file = io.BytesIO(b"0123456789")
    reader: BlobReader = StoredReader(OpenBlob(file, 10), DiskExecutor(1), Fallback(PASSED))
    assert (reader.ahead(4).file, reader.ahead(4).stop) == (file, 4)
    assert (reader.size, await reader.wait_readable(0), await reader.wait_readable(9)) == (10, 10, 10)
    reader.close()
    assert file.closed


def test_a_disk_that_fails_is_doubted_and_a_mirror_that_stops_is_not() -> None:
    """The upstream brings the rest; but not when that was what the mirror itself decided."""
    doubted: list[str] = []
    rescue = Fallback(PASSED, lambda: doubted.append("it"))
    assert rescue.continue_from_upstream(StoreError("no")) is PASSED
    with pytest.raises(ShuttingDown):
        rescue.continue_from_upstream(ShuttingDown("bye"))
    assert doubted == ["it"]
