"""What lies about in the blob store and among the partials and belongs to nothing.

Found by going through folders and entries a few at a time. What is young is left alone: a file is there
before its entry is (invariant 8), and a fill that was interrupted may go on.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import ROWS, BlobStore
from mirror.store.lock import try_lock
from mirror.store.metadata.closure import digest_or_none
from mirror.store.partial.partial import Partial


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file, and the bytes it takes."""

    path: Path
    size: int


def files_without_entry(blobs: BlobStore, before: float) -> Iterator[Orphan]:
    """Files of the blob store that no entry names, changed last before a moment (seconds since the epoch)."""
    for folder in sorted(blobs.folder.glob("sha*/*")):
        files = [each for each in os.scandir(folder) if each.is_file(follow_symlinks=False)]
        for start in range(0, len(files), ROWS):
            some = files[start : start + ROWS]
            names = {each.path: str(Path(each.path).relative_to(blobs.folder)) for each in some}
            known = blobs.file_names(filter(None, map(_key, names.values())))
            for each in some:
                status = each.stat(follow_symlinks=False)
                if names[each.path] not in known and status.st_ctime < before:
                    yield Orphan(Path(each.path), 512 * status.st_blocks)


def entries_without_file(blobs: BlobStore) -> Iterator[Digest]:
    """Blobs whose file is gone."""
    for key, _, name in blobs.entries(math.inf):
        if not (blobs.folder / name).exists():
            yield Digest.parse(key)


def old_partials(folder: Path, before: float, *, remove: bool) -> Iterator[Orphan]:
    """What interrupted fills have left, that nobody fills now and nobody has touched since a moment."""
    with os.scandir(folder) as entries:
        names = sorted(each.name for each in entries)
    for name in names:
        path = folder / name
        try:
            status = path.lstat()
        except FileNotFoundError:  # the fill is over, or went with its other file
            continue
        # A map and its data are one partial.
        paired = path.suffix == ".map" and path.with_suffix(".data").exists()
        if status.st_mtime < before and not paired and _is_free(path) and (not remove or _discard(path)):
            yield Orphan(path, 512 * status.st_blocks)


def _is_free(path: Path) -> bool:
    """Whether nobody fills it; asking changes nothing."""
    lock = path.with_suffix(".map")
    if not lock.exists():
        return True
    descriptor = try_lock(lock)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _discard(path: Path) -> bool:
    """Remove it, unless somebody has begun to fill it."""
    digest = digest_or_none(path.stem.replace("-", ":", 1)) if path.suffix in (".map", ".data") else None
    if digest is None:
        path.unlink(missing_ok=True)
        return True
    partial = Partial.lock(digest, path.parent)
    if partial is None:
        return False
    partial.discard()
    partial.release()
    return True


def _key(name: str) -> str | None:
    """The key of the entry that would name a file `sha256/ab/cdef....nonce`."""
    algorithm, _, rest = name.partition("/")
    encoded = rest.replace("/", "", 1).partition(".")[0]
    digest = digest_or_none(f"{algorithm}:{encoded}")
    return None if digest is None else str(digest)
