"""Orphans: files and entries in the blob store and among the partials that belong to nothing.

A search goes through folders and entries a batch at a time. Young files are kept: a file exists before its
entry does (invariant 8), and an interrupted fill may be resumed.
"""

import math
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from diskcache.core import DBNAME
from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.diskcache_disk import AdoptingDisk
from mirror.store.lock import try_lock
from mirror.store.metadata.blob_table import ROWS
from mirror.store.metadata.closure import digest_or_none
from mirror.store.partial.partial import Partial

# How long an interrupted fill can be resumed, in seconds: a week. After that its room has better uses.
RESUMED_SECONDS = 7 * 24 * 3600.0


class Orphan(Struct, frozen=True):
    """An orphaned file, and the bytes it takes on the disk.

    Of a partial also `reserved`, the bytes of the whole blob, and `modified`, in seconds since the epoch.
    """

    path: Path
    size: int
    reserved: int = 0
    modified: float = 0.0


def files_without_entry(blobs: BlobStore, before: float) -> Iterator[Orphan]:
    """Yield files of the blob store that no entry names.

    Only files last changed before a moment, in seconds since the epoch.
    """
    for folder in _shards(blobs.folder):
        files = [each for each in os.scandir(folder) if each.is_file(follow_symlinks=False)]
        for start in range(0, len(files), ROWS):
            batch = files[start : start + ROWS]
            names = {each.path: str(Path(each.path).relative_to(blobs.folder)) for each in batch}
            known = blobs.table.file_names(filter(None, map(_key_of_file, names.values())))
            for each in batch:
                status = each.stat(follow_symlinks=False)
                if names[each.path] not in known and status.st_ctime < before:
                    yield Orphan(Path(each.path), 512 * status.st_blocks)


def _shards(blobs: Path) -> Iterator[Path]:
    """Yield the folders that can have blobs; a link leads elsewhere, and is none."""
    for algorithm in _entries(blobs):
        if algorithm.name.startswith("sha") and algorithm.is_dir(follow_symlinks=False):
            shards = _entries(Path(algorithm.path))
            yield from (Path(each.path) for each in shards if each.is_dir(follow_symlinks=False))


def file_without_entry(blobs: BlobStore, digest: Digest) -> Path | None:
    """Return a file, unverified, that bears the name of a digest which has no entry.

    A crash between the two steps of an adoption (invariant 8) leaves one.
    """
    folder, encoded = blobs.folder / digest.algorithm / digest.encoded[:2], digest.encoded[2:]
    for each in _entries(folder):
        if each.name.startswith(f"{encoded}.") and _is_file(each):
            return Path(each.path)
    return None


def entries_without_file(blobs: BlobStore) -> Iterator[Digest]:
    """Yield blobs whose file is gone."""
    for key, _, name in blobs.table.entries(math.inf):
        digest = digest_or_none(key)
        if digest is not None and not (AdoptingDisk.is_own_name(name) and (blobs.folder / name).exists()):
            yield digest


def old_partials(folder: Path, before: float, *, remove: bool) -> Iterator[Orphan]:
    """Yield files of interrupted fills, unlocked and last written before a moment (seconds since the epoch).

    With `remove`, each is removed before it is yielded.
    """
    with os.scandir(folder) as entries:
        names = sorted(each.name for each in entries)
    for name in names:
        path = folder / name
        try:
            status = path.lstat()
        except FileNotFoundError:  # the fill has ended, or the file was removed with its pair
            continue
        if not stat.S_ISREG(status.st_mode):  # see `foreign_files`
            continue
        # A map and its data are one partial.
        paired = path.suffix == ".map" and path.with_suffix(".data").exists()
        if status.st_mtime >= before or paired:
            continue
        map_bytes = _map_bytes(path)
        with suppress(OSError):  # a folder with the name of its map, for instance: see `foreign_files`
            if _is_unlocked(path) and (not remove or discard(path)):
                yield Orphan(path, 512 * status.st_blocks + map_bytes, status.st_size, status.st_mtime)


def _map_bytes(path: Path) -> int:
    """Return the bytes that the map of a partial's data takes on the disk."""
    with suppress(OSError):
        if path.suffix == ".data":
            return 512 * path.with_suffix(".map").lstat().st_blocks
    return 0


def foreign_files(blobs: Path, partials: Path) -> Iterator[Path]:
    """Yield entries of the folders that neither the blob store nor a fill can have made.

    Those are files where the blob store has folders, and no files where it or a fill has files. Nothing
    removes these entries: only the operator knows why they are here.
    """
    for entry in _entries(blobs):
        if not entry.name.startswith(DBNAME) and not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)
    for algorithm in sorted(path for path in blobs.glob("sha*") if path.is_dir()):
        for shard in _entries(algorithm):
            if not shard.is_dir(follow_symlinks=False):
                yield Path(shard.path)
                continue
            yield from (Path(each.path) for each in _entries(Path(shard.path)) if not _is_file(each))
    yield from (Path(each.path) for each in _entries(partials) if not _is_file(each))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # removed meanwhile, or not readable
        return []


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def _is_unlocked(path: Path) -> bool:
    """Return whether no process fills the partial. The check changes nothing."""
    lock = path.with_suffix(".map")
    if not lock.exists():
        return True
    descriptor = try_lock(lock)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def discard(path: Path) -> bool:
    """Remove a partial and return True, unless a process has begun to fill it."""
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


def _key_of_file(name: str) -> str | None:
    """Return the key of the entry that would name a file `sha256/ab/cdef....nonce`."""
    algorithm, _, rest = name.partition("/")
    encoded = rest.replace("/", "", 1).partition(".")[0]
    digest = digest_or_none(f"{algorithm}:{encoded}")
    return None if digest is None else str(digest)
