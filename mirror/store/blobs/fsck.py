"""Is the blob store what it claims to be: every entry has its file, every file its entry, and its digest.

Done in small steps, so that whoever drives it decides about pace, pauses and where it is continued, beside a
mirror that runs or not. What looks wrong is looked at twice: meanwhile blobs come and go.
"""

import errno
import json
import os
import re
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.store.blobs.blobs import BAD, BlobRow, BlobStore
from mirror.store.readahead import resident

# One read, in bytes; and how many entries are read from the database at a time.
READ = 1024 * 1024
ROWS = 500

# A file may be without its entry for a moment, because it comes first (invariant 8); in seconds.
GRACE = 60.0

# Errors of a read for which the file is to blame, and not the disk as a whole: those of the disk, and modes.
UNREADABLE = BAD | {errno.EACCES, errno.EPERM}

# How the names of the database begin, beside the folders of the blobs.
DATABASE = "cache.db"

# What an adopted file is called: algorithm, two digits, the others, nonce.
NAME = re.compile(r"([a-z0-9]+)/([0-9a-f]{2})/([0-9a-f]+)\.[0-9a-f]{8}")


class Damage(StrEnum):
    """What is wrong, in words for people. LEFT and TWICE are what a crash may leave, and harmless."""

    MISSING = "the file is missing"
    SIZE = "the file has not its size"
    DIGEST = "the file does not hash to its name"
    UNREADABLE = "the disk does not give the file"
    FOREIGN = "this is no entry of ours"
    UNKNOWN = "this is no file of ours"
    LEFT = "the file is right, and has no entry"
    TWICE = "the file is right, and there is another one"


HARMLESS = frozenset({Damage.LEFT, Damage.TWICE})


@dataclass(frozen=True, slots=True)
class Finding:
    """`what`: a digest, or a file's name below the blobs; `done`: how it was put right, if it was."""

    subject: str
    damage: Damage
    repair: str | None = None


@dataclass(frozen=True, slots=True)
class FsckStep:
    """What one step has read, in bytes, and found; `last` of an entry or a file."""

    read: int = 0
    finding: Finding | None = None
    last: bool = False


@dataclass(slots=True)
class FsckCursor:
    """Where it stands: `files` says that the entries are done; `after` a digest, or the name of a file."""

    quick: bool = False
    files: bool = False
    after: str = ""
    checked: int = 0
    bytes: int = 0
    wrong: int = 0
    leftovers: int = 0
    began: float = field(default_factory=time.time)

    @classmethod
    def load(cls, path: Path, *, quick: bool) -> "FsckCursor":
        """Where the last run stopped, if that did the same; else the beginning."""
        with suppress(OSError, ValueError, TypeError):
            found = cls(**json.loads(path.read_text()))
            if found.quick == quick:
                return found
        return cls(quick=quick)

    def save(self, path: Path) -> None:
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(asdict(self)))
        os.rename(fresh, path)


class Fsck:
    """One run over `folder`, the blobs' own. `repair`: put right what is wrong; nothing wrong is deleted."""

    def __init__(self, folder: Path, blobs: BlobStore, cursor: FsckCursor, *, repair: bool) -> None:
        self.cursor = cursor
        self._folder = folder
        self._blobs = blobs
        self._repair = repair

    def steps(self) -> Iterator[FsckStep]:
        """To the end, from where the cursor stands. Raises what disk and database say."""
        cursor = self.cursor
        while not cursor.files:
            rows = self._blobs.rows(cursor.after, ROWS)
            for row in rows:
                yield from self._counted(self._entry(row), row.digest)
            if not rows:
                cursor.files, cursor.after = True, ""
        if not cursor.after:
            yield from self._counted(self._strays(), "")
        for folder in self._folders():
            names = (f"{folder}/{each}" for each in sorted(_listed(self._folder / folder)))
            for name in names:
                if name > cursor.after:
                    yield from self._counted(self._file(name), name)

    def _counted(self, steps: Iterator[FsckStep], name: str) -> Iterator[FsckStep]:
        """Noted before anybody hears of it: who stops here goes on with the next one."""
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

    def _strays(self) -> Iterator[FsckStep]:
        """Report files where the blob store has folders: beside its database, and beside the shards."""
        for name in sorted(_listed(self._folder)):
            if not (self._folder / name).is_dir():
                if not name.startswith(DATABASE):
                    yield FsckStep(finding=self._set_aside(name, Damage.UNKNOWN))
                continue
            for shard in sorted(_listed(self._folder / name)):
                if not (self._folder / name / shard).is_dir():
                    yield FsckStep(finding=self._set_aside(f"{name}/{shard}", Damage.UNKNOWN))

    def _folders(self) -> list[str]:
        """Those with files that come after the cursor, as `sha256/00`."""
        algorithms = [each for each in sorted(_listed(self._folder)) if (self._folder / each).is_dir()]
        found = [f"{each}/{shard}" for each in algorithms for shard in sorted(_listed(self._folder / each))]
        return [name for name in found if name >= self.cursor.after.rpartition("/")[0]]

    def _entry(self, row: BlobRow) -> Iterator[FsckStep]:
        digest = _digest_of(row.name)
        if digest is None or str(digest) != row.digest:
            yield FsckStep(finding=self._forgotten(row, Damage.FOREIGN, keep_file=True), last=True)
            return
        wrong: Damage | None = None
        try:
            status = os.lstat(self._folder / row.name)
            if not stat.S_ISREG(status.st_mode):
                wrong = Damage.UNKNOWN
            elif status.st_size != row.size:
                wrong = Damage.SIZE
            elif not self.cursor.quick:
                wrong = yield from self._hashed(row.name, digest)
        except FileNotFoundError:
            wrong = Damage.MISSING
        # What was evicted meanwhile has no entry any more; what was fetched anew has another file.
        if wrong is not None and self._blobs.row(row.digest) == row:
            yield FsckStep(finding=self._forgotten(row, wrong, keep_file=wrong is Damage.MISSING), last=True)
        else:
            yield FsckStep(last=True)

    def _forgotten(self, row: BlobRow, wrong: Damage, *, keep_file: bool) -> Finding:
        """Entry first, file second (invariant 8)."""
        if not self._repair:
            return Finding(row.digest, wrong)
        self._blobs.drop_entry(row)
        if keep_file:
            return Finding(row.digest, wrong, "entry removed")
        self._blobs.quarantine_file(self._folder / row.name)
        return Finding(row.digest, wrong, "entry removed, file set aside")

    def _file(self, name: str) -> Iterator[FsckStep]:
        digest = _digest_of(name)
        row = None if digest is None else self._blobs.row(str(digest))
        if row is not None and row.name == name:
            return
        try:
            status = os.lstat(self._folder / name)
            if time.time() - status.st_ctime < GRACE:
                return
            known = digest is not None and stat.S_ISREG(status.st_mode)
            wrong = (yield from self._hashed(name, digest)) if digest and known else Damage.UNKNOWN
        except FileNotFoundError:
            return
        if digest is None or wrong is not None:
            yield FsckStep(finding=self._set_aside(name, wrong or Damage.UNKNOWN), last=True)
        elif row is None:
            yield FsckStep(finding=self._entered(BlobRow(str(digest), name, status.st_size)), last=True)
        else:
            yield FsckStep(finding=self._superfluous(name), last=True)

    def _set_aside(self, name: str, wrong: Damage) -> Finding:
        if not self._repair:
            return Finding(name, wrong)
        try:
            self._blobs.quarantine_file(self._folder / name)
        except OSError:  # a folder of that name is in the quarantine already, for instance
            return Finding(name, wrong)
        return Finding(name, wrong, "file set aside")

    def _entered(self, row: BlobRow) -> Finding:
        if not self._repair:
            return Finding(row.name, Damage.LEFT)
        os.chmod(self._folder / row.name, 0o400)
        self._blobs.add_entry(row)
        return Finding(row.name, Damage.LEFT, "entry made")

    def _superfluous(self, name: str) -> Finding:
        """The one thing that is deleted: it is right, and so is the other, which was proven before it."""
        if not self._repair or self.cursor.quick:
            return Finding(name, Damage.TWICE)
        (self._folder / name).unlink(missing_ok=True)
        return Finding(name, Damage.TWICE, "removed")

    def _hashed(self, name: str, digest: Digest) -> Generator[FsckStep, None, Damage | None]:
        """Read all of the file; what is wrong with it, None for nothing. FileNotFoundError."""
        hasher = digest.hasher()
        try:
            with open(self._folder / name, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                cold = size > 0 and resident(file, 0, size) < size
                while data := file.read(READ):
                    hasher.update(data)
                    yield FsckStep(len(data))
                if cold:  # what nobody asks for is not to push out of memory what is asked for
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            return Damage.UNREADABLE
        return None if hasher.hexdigest() == digest.encoded else Damage.DIGEST


def _digest_of(name: str) -> Digest | None:
    """What a file of this name must hash to; None when it is none of ours."""
    parts = NAME.fullmatch(name)
    try:
        return None if parts is None else Digest.parse(f"{parts[1]}:{parts[2]}{parts[3]}")
    except RegistryError:
        return None


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
