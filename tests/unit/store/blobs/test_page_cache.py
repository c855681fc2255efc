"""Samples of the page cache."""

from pathlib import Path

from mirror.store.blobs.page_cache import SAMPLE_BYTES, resident
from tests.page_cache import drop

SIZE = 3 * SAMPLE_BYTES


def test_resident_tells_warm_from_cold(tmp_path: Path) -> None:
    """A file that was just written is in the page cache, and one that was dropped from it is not."""
    path = tmp_path / "blob"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file:
        warm = resident(file, 0, SIZE)
        drop(path)
        assert (warm, resident(file, 0, SIZE)) == (SIZE, 0)
