"""Whether a cache folder is what the mirror says of it, without asking the mirror (invariants 1 and 8)."""

import hashlib
from pathlib import Path

from mirror.store.blobs.blobs import BlobStore


def wrong_files(cache: Path) -> list[str]:
    """Files of the blob store that do not hash to their names."""
    return [str(path) for path in (cache / "blobs" / "sha256").glob("*/*") if _hash(path) != _named(path)]


def disorder(cache: Path, *, killed: bool) -> list[str]:
    """What the books say against the files; for a mirror that is stopped.

    `killed`: it was, and may have left files without an entry (invariant 10), as long as they are not wrong.
    """
    blobs = BlobStore(cache / "blobs", cache / "quarantine")
    try:
        left = f"unknown file: {cache / 'blobs' / 'sha256'}/"
        return [each for each in blobs.check() if not (killed and each.startswith(left))]
    finally:
        blobs.close()


def _named(path: Path) -> str:
    return path.parent.name + path.name.partition(".")[0]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
