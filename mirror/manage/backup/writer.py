"""The writing of a backup, beside a running mirror."""

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
from msgspec import Struct

from mirror import __version__
from mirror.bundle.pump import ByteSource, Pump, read_ahead
from mirror.bundle.tar_format import END, header, padding
from mirror.manage.backup.layout import (
    CONTENTS,
    FILES,
    FORMAT,
    HEAD,
    MOST_MISSING,
    ROWS,
    BackupContents,
    BackupError,
    BackupHead,
    MemberSum,
    blob_path,
)
from mirror.manage.backup.rows import RowsChanged, hosted_in, lines_of, linked_in, read_rows
from mirror.manage.carry.export import OutputFolder
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.savings_book import SavingsBook
from mirror.store.recovery import VERSION
from mirror.store.tokens.token_file import read_tokens
from mirror.util.callbacks import ignore
from mirror.util.durable import open_file

# Looks at the index while others push and delete, at most.
LOOKS = 100


class BackupPlan(Struct, frozen=True):
    """The contents of a backup before it is written. `blob_bytes`: of the blobs that are here."""

    hosted: list[str]
    blobs: int
    blob_bytes: int
    rows: int
    pins: int
    tokens: int
    files: list[str]


class BackupWriter:
    """One backup of a folder to `out`. `on_bytes` is called with numbers of bytes as they are written."""

    def __init__(
        self, folder: CacheDirectory, out: BinaryIO, on_bytes: Callable[[int], object] = ignore
    ) -> None:
        self._folder = folder
        self._out = out
        self._on_bytes = on_bytes
        self._members: dict[str, MemberSum] = {}
        self._written: set[Digest] = set()
        self._bytes = 0

    def write(self) -> BackupContents:
        """Write the archive; return what is in it. Raises BackupError, OSError and sqlite3.Error."""
        head = BackupHead(format=FORMAT, layout=VERSION, version=__version__, created=time.time())
        self._member(HEAD, msgspec.json.encode(head))
        with Pump() as pump:
            rows, missing = self._write_blobs(pump)
            self._write_rows(rows)
            self._write_files(pump)
        contents = BackupContents(
            members=self._members,
            blobs=len(self._written),
            blob_bytes=self._bytes,
            hosted=hosted_in(rows),
            missing=sorted(map(str, missing))[:MOST_MISSING],
            pins=len(self._folder.pins.all()),
            tokens=len(read_tokens(self._folder.path / "tokens")),
        )
        self._member(CONTENTS, msgspec.json.encode(contents))
        self._put(END)
        return contents

    def _write_blobs(self, pump: Pump) -> tuple[dict[str, str], set[Digest]]:
        """Write the blobs of all rows; return the rows, and the blobs that are not here.

        A blob that is not here any more was perhaps removed since the rows were read: they are read again.
        One that two looks at the rows name is lost.
        """
        gone: set[Digest] = set()
        for _ in range(LOOKS):
            try:
                rows = read_rows(self._folder)
            except RowsChanged:
                continue
            missing = self._copy(sorted(linked_in(rows) - self._written), pump)
            if missing <= gone:
                return rows, missing
            gone |= missing
        raise BackupError("the hosted repositories change too fast for a backup: repeat it at a quieter time")

    def _copy(self, digests: list[Digest], pump: Pump) -> set[Digest]:
        """Write blobs; return those that are not here."""
        missing: set[Digest] = set()
        for digest in digests:
            blob = self._folder.blobs.open(digest)
            if blob is None:
                missing.add(digest)
                continue
            with blob.file:
                self._blob(digest, blob.file, blob.size, pump)
        return missing

    def _blob(self, digest: Digest, file: BinaryIO, size: int, pump: Pump) -> None:
        hasher = digest.hasher()
        self._put(header(blob_path(digest), size))
        read_ahead(file)
        count = pump.copy(cast("ByteSource", file), size, [hasher], self._put)
        if count != size or hasher.hexdigest() != digest.encoded:
            self._folder.blobs.quarantine(digest)
            raise BackupError(
                f"the blob {digest} is corrupt on the disk and is in quarantine now: push it again if you"
                " can, and repeat the backup, which then goes on without it"
            )
        self._put(bytes(padding(size)))
        self._written.add(digest)
        self._bytes += size

    def _write_rows(self, rows: dict[str, str]) -> None:
        """Write the rows, which a second pass writes after the first has counted their bytes."""
        self._put(header(ROWS, sum(map(len, lines_of(rows)))))
        size, hasher = 0, hashlib.sha256()
        for line in lines_of(rows):
            hasher.update(line)
            self._put(line)
            size += len(line)
        self._put(bytes(padding(size)))
        self._members[ROWS] = MemberSum(size, hasher.hexdigest())

    def _write_files(self, pump: Pump) -> None:
        for name, most in FILES.items():
            with _current(self._folder.path, name) as file:
                if file is None:
                    continue
                size = os.fstat(file.fileno()).st_size
                if size > most:
                    raise BackupError(f"{self._folder.path / name} has {size} bytes, more than it can have")
                hasher = hashlib.sha256()
                self._put(header(name, size))
                if pump.copy(cast("ByteSource", file), size, [hasher], self._put) != size:
                    raise BackupError(
                        f"{self._folder.path / name} was cut short meanwhile: repeat the backup"
                    )
                self._put(bytes(padding(size)))
                self._members[name] = MemberSum(size, hasher.hexdigest())

    def _member(self, name: str, data: bytes) -> None:
        self._put(header(name, len(data)) + data + bytes(padding(len(data))))
        self._members[name] = MemberSum(len(data), hashlib.sha256(data).hexdigest())

    def _put(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            count = self._out.write(rest) or 0
            self._on_bytes(count)
            rest = rest[count:]


@contextmanager
def _current(folder: Path, name: str) -> Iterator[BinaryIO | None]:
    """Open a file of the folder as it is at one moment; None if there is none.

    Text files are replaced as a whole by those that write them; a database is copied by SQLite.
    """
    if name.endswith(".db"):
        with tempfile.TemporaryDirectory(prefix="backup-") as place:
            copy = Path(place, name)
            if not SavingsBook(folder).copy_to(copy):
                yield None
                return
            with open_file(copy) as file:
                yield file
        return
    try:
        opened = open_file(folder / name)
    except FileNotFoundError:
        yield None
        return
    with closing(opened):
        yield opened


def plan_backup(folder: CacheDirectory) -> BackupPlan:
    """Return what a backup would have now."""
    rows = read_rows(folder)
    wanted = linked_in(rows)
    sizes = folder.blobs.table.sizes_and_last_use(map(str, wanted))
    return BackupPlan(
        hosted=hosted_in(rows),
        blobs=len(sizes),
        blob_bytes=sum(size for size, _ in sizes.values()),
        rows=len(rows),
        pins=len(folder.pins.all()),
        tokens=len(read_tokens(folder.path / "tokens")),
        files=[name for name in FILES if (folder.path / name).is_file()],
    )


def write_backup(
    folder: CacheDirectory, output: OutputFolder | BinaryIO, name: str, on_bytes: Callable[[int], object]
) -> BackupContents:
    """Write a backup to a stream, or as `name` to a folder, where it appears when it is complete.

    An earlier backup of that name stays until then. Raises BackupError, OSError and sqlite3.Error.
    """
    if not isinstance(output, OutputFolder):
        contents = BackupWriter(folder, output, on_bytes).write()
        output.flush()
        return contents
    part = f"{name}.part"
    descriptor = output.open(part, os.O_WRONLY | os.O_CREAT)
    with open(descriptor, "wb", buffering=64 * 1024) as file:
        _claim(descriptor, part)
        contents = BackupWriter(folder, file, on_bytes).write()
        file.flush()
        os.fsync(descriptor)
        output.rename(part, name)
    return contents


def _claim(descriptor: int, part: str) -> None:
    """Make a file this process's alone, and empty: what an interrupted backup has left of it is dropped."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BackupError(f"another backup writes {part} right now") from None
    if os.fstat(descriptor).st_mode & 0o077:
        try:
            os.fchmod(descriptor, 0o600)
        except PermissionError:  # this process is not root any more, who has opened the file
            raise BackupError(f"{part} is there, and readable for others: remove it") from None
    os.ftruncate(descriptor, 0)
