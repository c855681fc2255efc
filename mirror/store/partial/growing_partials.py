"""Partials that are being written, by whichever process."""

import os
from contextlib import suppress
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError


def growing_partials(folder: Path, since: float) -> list[Digest]:
    """Return the blobs whose partials were written since a moment (seconds since the epoch). Blocks."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            stem, dot, kind = entry.name.rpartition(".")
            if (dot, kind) != (".", "data"):
                continue
            with suppress(OSError, RegistryError):  # adopted since it was listed, or no partial
                if entry.stat(follow_symlinks=False).st_mtime >= since:
                    found.append(Digest.parse(stem.replace("-", ":", 1)))
    return found
