"""Partials that are being written."""

import os
import time
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.lock import data_path
from mirror.store.partial.growing_partials import growing_partials

# A moment that is still to come does not grow old.
LATER = time.time() + 3600


def test_growing_partials_are_told_by_their_data(tmp_path: Path) -> None:
    """Not maps, leases, or files of other programs; nor data that was written before."""
    old, new = Digest.of(b"old"), Digest.of(b"new")
    for digest, written in ((old, 1.0), (new, LATER)):
        path = data_path(digest, tmp_path)
        path.touch()
        os.utime(path, (written, written))
    for name in ("import-x.data", "x.data", f"sha256-{new.encoded}.map", "data"):
        (tmp_path / name).touch()
    assert growing_partials(tmp_path, LATER - 1) == [new]
    assert growing_partials(tmp_path / "none", 0) == []
