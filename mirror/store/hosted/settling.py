"""Settlement of the journal of pushes: what it has is made durable, and its files are removed.

After a power failure pushes are done again whose transaction is lost, and files are written again that are
missing or wrong.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import AdoptingDisk
from mirror.store.blobs.entries import Origin
from mirror.store.blobs.small_files import SmallFiles
from mirror.store.cache_dir import CacheDirectory
from mirror.store.health import ERRORS
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.push_journal import FOLDER, PushBatch, batches
from mirror.store.lock import is_name_of
from mirror.store.metadata.blob_table import BlobRow
from mirror.util.durable import create_file, open_file, sync_folder
from mirror.util.log import get_logger

log = get_logger(__name__)

# Age of a file, in seconds, from which it is settled while the mirror runs: by then the kernel has written
# what it names, and a sync waits for nothing.
SETTLED_SECONDS = 60.0

# Most files that wait for that age: 64 MiB.
MOST_FILES = 64

# End of the name of a file whose records are whole, and written by another version.
UNREADABLE = ".unreadable"


class Settlement:
    """Settlement in one cache folder. Every method blocks. Raises OSError and sqlite3.Error."""

    def __init__(self, folder: CacheDirectory) -> None:
        self._folder = folder
        self._blobs = folder.blobs
        self._index = HostedIndex(folder)

    def settle_all(self) -> int:
        """Settle what no living process writes; return how many manifests were not whole.

        Another process that does the same is waited for.
        """
        return self._settle(self._files())

    def settle_old(self, now: float) -> None:
        """Settle what is old enough, or too much."""
        paths = self._files()
        old = [
            each
            for number, each in enumerate(paths)
            if number < len(paths) - MOST_FILES or _modified(each) < now - SETTLED_SECONDS
        ]
        if old:
            self._settle(old)

    def _files(self) -> list[Path]:
        """Return the files of the journal, the oldest first."""
        with suppress(FileNotFoundError):
            found = (self._folder.path / FOLDER).iterdir()
            return sorted(each for each in found if not each.name.endswith(UNREADABLE))
        return []

    def _settle(self, paths: Sequence[Path]) -> int:
        written = 0
        with ExitStack() as stack:
            stack.enter_context(_locked(self._folder.path / FOLDER))
            mine = [each for each in paths if stack.enter_context(_abandoned(each))]
            read = {each: batches_in for each in mine if (batches_in := _read(each)) is not None}
            found = [batch for batches_in in read.values() for batch in batches_in]
            self._index.put_again(sorted(found, key=lambda batch: (batch.number, batch.moment)))
            for each in found:
                written += self._make_durable(each)
            for database in (self._blobs.database, self._folder.index.database):
                database.sync_log()
            for path in read:
                path.unlink()
        if written:
            log.warning("pushed manifests restored after a crash of this machine", manifests=written)
        return written

    def _make_durable(self, batch: PushBatch) -> int:
        """Have the files of pushes on the disk; return how many were not there, or wrong."""
        written, folders = 0, {self._blobs.folder}
        linked = self._blobs.retention.hosted_among([str(each.digest) for each in batch.pushes])
        self._blobs.retention.retain(linked)
        for push in batch.pushes:
            row = self._blobs.table.row(str(push.digest))
            if not push.data or (row is None and str(push.digest) not in linked):
                continue  # durable already, or deleted meanwhile
            if row is None or not AdoptingDisk.is_own_name(row.name):
                files = SmallFiles(self._blobs, self._folder.partials)
                files.add({push.digest: push.data}, Origin.PRIVATE, durable=True, retained=True)
                written += 1
                continue
            file = self._blobs.folder / row.name
            if not _synced(file, push.data):
                self._write(row, push.digest, push.data)
                written += 1
            folders |= {file.parent, file.parent.parent}
        for folder in folders:
            sync_folder(folder)
        return written

    def _write(self, row: BlobRow, digest: Digest, data: bytes) -> None:
        """Write the file of an entry again. It belongs to the owner of the folder, as all of them do."""
        target = self._blobs.folder / row.name
        fresh = self._folder.partials / f"small-{digest.encoded}-{os.getpid()}-{threading.get_ident()}"
        owner = os.stat(self._blobs.folder)
        with create_file(fresh, 0o400) as file:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(fresh, target)


def settle_at_start(folder: CacheDirectory) -> None:
    """Settle what earlier processes have left; with a disk that fails, that is done once it is well."""
    try:
        Settlement(folder).settle_all()
    except ERRORS as error:
        log.error("journal of pushes not settled, tried again later", reason=str(error))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process settle at a time; without effect while there is no journal."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Lock a file of the journal; yield False while its writer lives, and once it was settled."""
    try:
        file = open_file(path)
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield is_name_of(path, file.fileno())


def _read(path: Path) -> list[PushBatch] | None:
    """Return what a file has; None for one of another version, which is set aside: the mirror does start."""
    with open_file(path) as file:
        data = file.read()
    try:
        return list(batches(data))
    except msgspec.MsgspecError as error:
        aside = path.with_name(f"{path.name}{UNREADABLE}")
        os.rename(path, aside)
        log.error("file of the journal of pushes set aside", file=str(aside), reason=str(error))
        return None


def _synced(path: Path, data: bytes) -> bool:
    """Return whether a file has the bytes, which are on the disk then."""
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size != len(data) or file.read() != data:
                return False
            os.fdatasync(file.fileno())
    except FileNotFoundError:
        return False
    return True


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
