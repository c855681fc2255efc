"""Readers: the same to whoever sends, whether the blob is whole or growing."""

import io
from typing import cast

import pytest

from mirror.cache.results import BlobReader, Rescue, StoredReader
from mirror.store.blobs.blobs import OpenBlob
from mirror.store.errors import ShuttingDown, StoreError
from mirror.store.executor import DiskThreads
from mirror.transfer.passthrough import PassedBlob

# Who would bring the rest; nobody asks it for anything here.
PASSED = cast(PassedBlob, object())


async def test_a_stored_blob_is_readable_to_its_end() -> None:
    """At once, and closed by whoever had it."""
    file = io.BytesIO(b"0123456789")
    reader: BlobReader = StoredReader(OpenBlob(file, 10), DiskThreads(1), Rescue(PASSED))
    assert (reader.ahead(4).file, reader.ahead(4).stop) == (file, 4)
    assert (reader.size, await reader.wait_readable(0), await reader.wait_readable(9)) == (10, 10, 10)
    reader.close()
    assert file.closed


def test_a_disk_that_fails_is_doubted_and_a_mirror_that_stops_is_not() -> None:
    """The upstream brings the rest; but not when that was what the mirror itself decided."""
    doubted: list[str] = []
    rescue = Rescue(PASSED, lambda: doubted.append("it"))
    assert rescue.instead(StoreError("no")) is PASSED
    with pytest.raises(ShuttingDown):
        rescue.instead(ShuttingDown("bye"))
    assert doubted == ["it"]
