"""Readers: the same to whoever sends, whether the blob is whole or growing."""

import io

from mirror.cache.answers import BlobReader, StoredReader
from mirror.store.blobs import OpenBlob
from mirror.store.threads import DiskThreads


async def test_a_stored_blob_is_readable_to_its_end() -> None:
    """At once, and closed by whoever had it."""
    file = io.BytesIO(b"0123456789")
    reader: BlobReader = StoredReader(OpenBlob(file, 10), DiskThreads(1))
    assert (reader.ahead(4).file, reader.ahead(4).stop) == (file, 4)
    assert (reader.size, await reader.wait_readable(0), await reader.wait_readable(9)) == (10, 10, 10)
    reader.close()
    assert file.closed
