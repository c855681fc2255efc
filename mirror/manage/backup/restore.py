"""The way back: a backup becomes a cache folder.

Everything is made in `<folder>/restoring`, proven, and then moved up; a file `restoring/.complete` says that
only the moves are left. A mirror does not start on a folder with a `restoring` that has anything in it. After
a crash the same command begins again, or finishes the moves.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mirror.manage.backup.layout import FILES, LONGEST_LINE, ROWS, BackupContents, BackupError
from mirror.manage.backup.reader import BackupReader, DiscardedMembers
from mirror.manage.backup.rows import put_rows, row_of
from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.recovery import FOUND, RESTORING
from mirror.util.callbacks import ignore
from mirror.util.durable import WriteBack, create_file, sync_folder, touch

# The mark of a restored folder that only has to be moved up.
COMPLETE = ".complete"

# The end of the name of a file that is not proven yet.
NEW = ".restored"

# Blobs that one transaction adds.
BLOBS_AT_ONCE = 64

# Rows that are held in memory at a time.
ROWS_AT_ONCE = 5000

# Room that is left on the disk beside what is restored, in bytes.
SPARE = 64 * 1024 * 1024


class FileSink:
    """A file that receives a member. `kept` is called with it when all bytes are in it."""

    def __init__(self, path: Path, kept: Callable[[Path], object]) -> None:
        self._path = path
        self._kept = kept
        self._file = create_file(path)
        self._written = WriteBack(self._file.fileno())

    def write(self, data: memoryview, /) -> None:
        self._file.write(data)
        self._written.note(len(data))

    def keep(self) -> None:
        self.close()
        self._kept(self._path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Restored:
    """The folder that receives a backup, in its own place. To be closed."""

    def __init__(self, path: Path) -> None:
        self._folder = CacheDirectory(path)
        self._path = path
        self._sink: FileSink | None = None
        self._proven: list[VerifiedFile] = []

    def blob(self, digest: Digest, size: int, /) -> FileSink:
        """Return the place of a blob."""

        def kept(path: Path) -> None:
            self._proven.append(VerifiedFile(digest, path, size, origin=Origin.PRIVATE, retained=True))
            if len(self._proven) >= BLOBS_AT_ONCE:
                self._adopt()

        place = self._folder.partials / f"restored-{digest.algorithm}-{digest.encoded}"
        self._sink = FileSink(place, kept)
        return self._sink

    def file(self, name: str, /) -> FileSink:
        """Return the place of another member."""
        self._sink = FileSink(self._path / f"{name}{NEW}", ignore)
        return self._sink

    def finish(self, contents: BackupContents) -> None:
        """Write the index and the files, which are proven now. Raises BackupError."""
        self._adopt()
        self._put_rows(contents)
        for name in FILES:
            if (source := self._path / f"{name}{NEW}").exists():
                os.rename(source, self._path / name)

    def close(self) -> None:
        """Close files and databases."""
        if self._sink is not None:
            self._sink.close()
        self._folder.close()

    def _put_rows(self, contents: BackupContents) -> None:
        source, hosted = self._path / f"{ROWS}{NEW}", frozenset(contents.hosted)
        if not source.exists():
            raise BackupError(f"{ROWS} is missing: the backup is damaged")
        with source.open("rb") as lines:
            rows = (row_of(line, hosted) for line in iter(lambda: lines.readline(LONGEST_LINE + 1), b""))
            while some := list(islice(rows, ROWS_AT_ONCE)):
                put_rows(self._folder, some)
        source.unlink()

    def _adopt(self) -> None:
        if self._proven:
            self._folder.blobs.add(*self._proven)
            self._proven.clear()


def verify(file: BinaryIO, on_bytes: Callable[[int], object] = ignore) -> BackupContents:
    """Read a backup, and keep nothing. Raises BackupError, OSError."""
    return BackupReader(file, on_bytes).read(DiscardedMembers())


def check_target(path: Path) -> None:
    """Raise BackupError unless a folder is new, empty, or has an unfinished restore alone."""
    with suppress(FileNotFoundError):
        here = {each.name for each in path.iterdir()} - FOUND
        if here and not (path / RESTORING / COMPLETE).exists() and here != {RESTORING}:
            raise BackupError(
                f"{path} has something in it: a backup is restored to a new folder or an empty one alone."
                " Choose another one (--cache-dir), or stop the mirror and move this one away"
            )


def restore(file: BinaryIO, path: Path, on_bytes: Callable[[int], object] = ignore) -> BackupContents | None:
    """Restore a backup to a folder; None if only the end of an earlier attempt was left to do.

    Raises BackupError, StoreError, OSError and sqlite3.Error; what was begun is removed then.
    """
    check_target(path)
    staging = path / RESTORING
    if (staging / COMPLETE).exists():
        move_up(staging)
        return None
    made = not path.exists()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        _check_room(file, path)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        contents = _make_folder(file, staging, on_bytes)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if made:
            with suppress(OSError):
                path.rmdir()
        raise
    move_up(staging)
    return contents


def _make_folder(file: BinaryIO, staging: Path, on_bytes: Callable[[int], object]) -> BackupContents:
    """Make the folder of a backup, whole and durable."""
    with closing(Restored(staging)) as receiver:
        contents = BackupReader(file, on_bytes).read(receiver)
        receiver.finish(contents)
    touch(staging / COMPLETE)
    _sync_all(staging)
    return contents


def move_up(staging: Path) -> None:
    """Move what was restored into its place; may be repeated after a crash at any line."""
    folder = staging.parent
    for each in sorted(staging.iterdir()):
        if each.name != COMPLETE:
            os.rename(each, folder / each.name)
    os.chmod(folder, 0o700)
    sync_folder(folder)
    (staging / COMPLETE).unlink()
    staging.rmdir()
    sync_folder(folder)


def _check_room(file: BinaryIO, path: Path) -> None:
    """Raise BackupError if an archive is larger than the room on the disk; that of a pipe is not known."""
    with suppress(OSError):
        size = os.fstat(file.fileno()).st_size
        free = shutil.disk_usage(path).free
        if size + SPARE > free:
            raise BackupError(f"the backup has {size} bytes, and {path} has room for {free}")


def _sync_all(staging: Path) -> None:
    """Make names and databases durable; the blobs are already."""
    for folder, _, names in os.walk(staging):
        for name in names:
            if folder == str(staging) or not folder.startswith(str(staging / "blobs" / "sha")):
                with open(Path(folder, name), "rb") as file:
                    os.fsync(file.fileno())
        sync_folder(Path(folder))
