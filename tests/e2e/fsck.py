"""Check of a cache folder against the mirror's promises, without asking the mirror (invariants 1 and 8)."""

import hashlib
from pathlib import Path

from mirror.store.blobs.blobs import BlobStore


def wrong_files(cache: Path) -> list[str]:
    """Return the files of the blob store that do not hash to their names."""
    return [str(path) for path in (cache / "blobs" / "sha256").glob("*/*") if _hash(path) != _named(path)]


def disorder(cache: Path, *, killed: bool) -> list[str]:
    """Return where the index and the files disagree, for a mirror that is stopped.

    A mirror that was `killed` may have left files without an entry (invariant 10), if they are right.
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
