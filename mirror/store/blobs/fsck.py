"""The file system check of the blob store: every entry has its file, every file its entry and its digest.

Done in small steps, so that the caller decides about rate, pauses and resuming, with or without a running
mirror. A suspicion is checked twice, because blobs come and go meanwhile.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from diskcache.core import DBNAME
from msgspec import Struct, field
from msgspec.structs import asdict

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.store.blobs.blobs import UNREADABLE_ERRNOS, BlobStore
from mirror.store.blobs.diskcache_disk import AdoptingDisk
from mirror.store.blobs.entries import SMALL_BYTES
from mirror.store.blobs.page_cache import resident
from mirror.store.metadata.blob_table import BlobRow
from mirror.util.durable import create_file, open_file

# Bytes of one read, and entries to read from the database at a time.
READ_BYTES = 1024 * 1024
ROWS = 500

# How long, in seconds, a file may be without its entry: the file comes first (invariant 8).
GRACE_SECONDS = 60.0

# Errors of a read for which the file is to blame, and not the disk as a whole: those of the disk, and modes.
READ_ERRNOS = UNREADABLE_ERRNOS | {errno.EACCES, errno.EPERM}


# Name of the file in the cache folder with the progress of the scrub's pass, or of its last one.
CURSOR = "scrub.cursor"


class Damage(StrEnum):
    """Kinds of damage, in words for people. NO_ENTRY, DUPLICATE, UNLINKED are left by crashes."""

    MISSING = "the file is missing"
    SIZE = "the file has the wrong size"
    DIGEST = "the file does not hash to its name"
    UNREADABLE = "the disk cannot read the file"
    FOREIGN = "the entry is not one of the mirror"
    UNKNOWN = "the file is not one of the mirror"
    NO_ENTRY = "the file is intact, but has no entry"
    DUPLICATE = "the file is intact, but there is another one"
    EVICTABLE = "a hosted repository has the blob, and an eviction could remove it"
    UNLINKED = "the blob is kept, and no hosted repository has it"


HARMLESS = frozenset({Damage.NO_ENTRY, Damage.DUPLICATE, Damage.UNLINKED})


class Finding(Struct, frozen=True):
    """Damage of one subject, a digest or a file's name below the blobs, and its `repair`, if any.

    `quarantined` is true if the repair moved a file to the quarantine.
    """

    subject: str
    damage: Damage
    repair: str | None = None
    quarantined: bool = False


class FsckStep(Struct, frozen=True):
    """The bytes that one step has read, and its finding; `last` of an entry or a file."""

    read: int = 0
    finding: Finding | None = None
    last: bool = False


class FsckCursor(Struct):
    """The progress of a run. `files`: all entries are done; `after`: a digest, or then the name of a file.

    `total`: the bytes of all blobs when it began, if known. `began` and `ended` in seconds since the epoch;
    `ended` is 0 while the run is not done.
    """

    quick: bool = False
    files: bool = False
    after: str = ""
    checked: int = 0
    bytes: int = 0
    wrong: int = 0
    leftovers: int = 0
    began: float = field(default_factory=time.time)
    total: int = 0
    ended: float = 0.0

    @property
    def share(self) -> float:
        """Return the share of a pass that is done, from 0 to 1, as far as `total` tells."""
        return 1.0 if self.ended else min(1.0, self.bytes / self.total) if self.total else 0.0

    @classmethod
    def load(cls, path: Path, *, quick: bool) -> "FsckCursor":
        """Return where the last run stopped, if it was as `quick`; else the beginning."""
        with suppress(OSError, ValueError, TypeError):
            found = cls(**json.loads(path.read_text()))
            if found.quick == quick:
                return found
        return cls(quick=quick)

    def save(self, path: Path) -> None:
        """Write the cursor, atomically."""
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        with create_file(fresh) as file:
            file.write(json.dumps(asdict(self)).encode())
        os.rename(fresh, path)


class Fsck:
    """One run over `folder`, that of the blobs. With `repair`, corrupt files go to quarantine."""

    def __init__(
        self, folder: Path, blobs: BlobStore, cursor: FsckCursor, *, repair: bool, in_use: bool = False
    ) -> None:
        """`in_use`: clients are being sent the files, which therefore stay in the page cache."""
        self._in_use = in_use
        self.cursor = cursor
        self._folder = folder
        self._blobs = blobs
        self._repair = repair

    def steps(self) -> Iterator[FsckStep]:
        """Yield steps to the end, from the cursor on. Raises errors of disk and database."""
        cursor = self.cursor
        while not cursor.files:
            rows = self._blobs.table.rows(cursor.after, ROWS)
            for row in rows:
                yield from self._count(self._check_entry(row), row.digest)
            if not rows:
                cursor.files, cursor.after = True, ""
        if not cursor.after:
            yield from self._count(self._check_places(), "")
        for folder in self._folders():
            names = (f"{folder}/{each}" for each in sorted(_list_folder(self._folder / folder)))
            for name in names:
                if name > cursor.after:
                    yield from self._count(self._check_file(name), name)

    def check(self, row: BlobRow) -> Iterator[FsckStep]:
        """Yield the steps of one entry. Raises errors of disk and database."""
        return self._check_entry(row)

    def _count(self, steps: Iterator[FsckStep], name: str) -> Iterator[FsckStep]:
        """Count each step before it is yielded: a caller that stops here goes on with the next one."""
        for step in steps:
            self.cursor.bytes += step.read
            if step.last:
                self.cursor.after = name
                self.cursor.checked += not self.cursor.files
            if step.finding is not None and step.finding.damage in HARMLESS:
                self.cursor.leftovers += 1
            elif step.finding is not None:
                self.cursor.wrong += 1
            yield step

    def _check_places(self) -> Iterator[FsckStep]:
        """Find files where the blob store has folders: beside its database, and beside the shards."""
        for name in sorted(_list_folder(self._folder)):
            if not _is_folder(self._folder / name):
                if not name.startswith(DBNAME):
                    yield FsckStep(finding=self._quarantine_file(name, Damage.UNKNOWN))
                continue
            for shard in sorted(_list_folder(self._folder / name)):
                if not _is_folder(self._folder / name / shard):
                    yield FsckStep(finding=self._quarantine_file(f"{name}/{shard}", Damage.UNKNOWN))

    def _folders(self) -> list[str]:
        """Return the folders with files after the cursor, as `sha256/00`."""
        algorithms = [each for each in sorted(_list_folder(self._folder)) if _is_folder(self._folder / each)]
        found = [
            f"{each}/{shard}"
            for each in algorithms
            for shard in sorted(_list_folder(self._folder / each))
            if _is_folder(self._folder / each / shard)
        ]
        return [name for name in found if name >= self.cursor.after.rpartition("/")[0]]

    def _check_entry(self, row: BlobRow) -> Iterator[FsckStep]:
        digest = _digest_of(row.name)
        if digest is None or str(digest) != row.digest:
            yield FsckStep(finding=self._drop_entry(row, Damage.FOREIGN, keep_file=True), last=True)
            return
        wrong: Damage | None = None
        try:
            status = os.lstat(self._folder / row.name)
            if not stat.S_ISREG(status.st_mode):
                wrong = Damage.UNKNOWN
            elif status.st_size != row.size:
                wrong = Damage.SIZE
            elif not self.cursor.quick:
                wrong = yield from self._hash_file(row.name, digest)
        except FileNotFoundError:
            wrong = Damage.MISSING
        # A blob evicted meanwhile has no entry any more; one that was fetched again has another file.
        if wrong is not None and self._blobs.table.row(row.digest) == row:
            yield FsckStep(finding=self._drop_entry(row, wrong, keep_file=wrong is Damage.MISSING), last=True)
            return
        if wrong is None and self._repair and not self.cursor.quick and row.size > SMALL_BYTES:
            self._blobs.table.note_verified(row)
        yield FsckStep(last=True)

    def _drop_entry(self, row: BlobRow, wrong: Damage, *, keep_file: bool) -> Finding:
        """Remove an entry, and quarantine its file: entry first, file second (invariant 8)."""
        if not self._repair:
            return Finding(row.digest, wrong)
        self._blobs.drop_entry(row)
        if keep_file:
            return Finding(row.digest, wrong, "entry removed")
        self._blobs.quarantined.add(self._folder / row.name)
        return Finding(row.digest, wrong, "entry removed, file quarantined", quarantined=True)

    def _check_file(self, name: str) -> Iterator[FsckStep]:
        digest = _digest_of(name)
        row = None if digest is None else self._blobs.table.row(str(digest))
        if row is not None and row.name == name:
            return
        try:
            status = os.lstat(self._folder / name)
            if time.time() - status.st_ctime < GRACE_SECONDS:
                return
            known = digest is not None and stat.S_ISREG(status.st_mode)
            wrong = (yield from self._hash_file(name, digest)) if digest and known else Damage.UNKNOWN
        except FileNotFoundError:
            return
        if digest is None or wrong is not None:
            yield FsckStep(finding=self._quarantine_file(name, wrong or Damage.UNKNOWN), last=True)
        elif row is None:
            yield FsckStep(finding=self._add_entry(BlobRow(str(digest), name, status.st_size)), last=True)
        else:
            yield FsckStep(finding=self._remove_duplicate(name), last=True)

    def _quarantine_file(self, name: str, wrong: Damage) -> Finding:
        if not self._repair:
            return Finding(name, wrong)
        try:
            self._blobs.quarantined.add(self._folder / name)
        except OSError:  # a folder of that name is in the quarantine already, for instance
            return Finding(name, wrong)
        return Finding(name, wrong, "file quarantined", quarantined=True)

    def _add_entry(self, row: BlobRow) -> Finding:
        if not self._repair:
            return Finding(row.name, Damage.NO_ENTRY)
        with open_file(self._folder / row.name) as file:
            os.fchmod(file.fileno(), 0o400)
        self._blobs.add_entry(row)
        return Finding(row.name, Damage.NO_ENTRY, "entry added")

    def _remove_duplicate(self, name: str) -> Finding:
        """Delete an intact file whose entry names another one, verified before. Nothing else is deleted."""
        if not self._repair or self.cursor.quick:
            return Finding(name, Damage.DUPLICATE)
        (self._folder / name).unlink(missing_ok=True)
        return Finding(name, Damage.DUPLICATE, "removed")

    def _hash_file(self, name: str, digest: Digest) -> Generator[FsckStep, None, Damage | None]:
        """Read all of a file; return its damage, None for none. FileNotFoundError."""
        hasher = digest.hasher()
        try:
            with open_file(self._folder / name) as file:
                size = os.fstat(file.fileno()).st_size
                cold = not self._in_use and size > 0 and resident(file, 0, size) < size
                while data := file.read(READ_BYTES):
                    hasher.update(data)
                    yield FsckStep(len(data))
                if cold:  # unrequested content must not displace requested content in the page cache
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            if error.errno not in READ_ERRNOS:
                raise
            return Damage.UNREADABLE
        return None if hasher.hexdigest() == digest.encoded else Damage.DIGEST


def _digest_of(name: str) -> Digest | None:
    """Return the digest that a file of this name must have; None if the name is not one of ours."""
    parts = AdoptingDisk.FILE_NAME.fullmatch(name)
    try:
        return None if parts is None else Digest.parse(f"{parts[1]}:{parts[2]}{parts[3]}")
    except RegistryError:
        return None


def _is_folder(path: Path) -> bool:
    """Return whether the path is a folder; a link to one is not."""
    return path.is_dir() and not path.is_symlink()


def _list_folder(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def scrub_progress(folder: Path) -> FsckCursor | None:
    """Return the progress of the pass that runs in a cache folder, or of the last one; None before any."""
    path = folder / CURSOR
    return FsckCursor.load(path, quick=False) if path.is_file() else None
