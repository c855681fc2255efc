"""Recovery: what counts as a miss on a failing disk, what is tried again, and how lost parts are recreated.

`Recovery.read_or` and `Recovery.write` are two of the policies of `guard.py`, which has the table, for one
thread. `health.StoreHealth` holds what is down, and since when. A part of the folder that was removed or is
corrupt is recreated by the call that meets it, which then goes on.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from mirror.store.errors import StoreError, describe, translated
from mirror.store.health import ERRORS, Capability, FaultKind, StoreHealth, kind_of
from mirror.store.metadata.database import Database
from mirror.store.pins.manifest_journal import BOOKS_LOST
from mirror.util.callbacks import ignore
from mirror.util.durable import replace_file, touch, try_allocate
from mirror.util.log import get_logger

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)

# Version of the layout: raised when an older mirror could not use what a newer one has written.
VERSION = 1

# The mark of lost entries: while this file exists, there are blobs without an entry (`store.scrub`).
REBUILD = "rebuild"

# What is lost with a database, for the log.
LOST_WITH_BLOBS = "the entries of the blobs; they are recreated from the files"
LOST_WITH_INDEX = "which image has which content; upstreams are asked again, and pinned content stays"

# The folder of a restore, until all in it is in its place (`manage.backup.restore`).
RESTORING = "restoring"

# Room that a disk must have before it counts as working again, in bytes.
PROBE_BYTES = 1024 * 1024

# What a new file system has in its root folder: a folder with nothing else is new.
FOUND = frozenset({"lost+found"})

# With these faults the mirror starts and passes pulls through; any other one is a mistake to be reported.
TOLERATED = frozenset(
    {FaultKind.FULL, FaultKind.READ_ONLY, FaultKind.BROKEN, FaultKind.BUSY, FaultKind.CORRUPT}
)


class Recovery:
    """The layout of one cache folder and its two databases, of the blobs and of the index."""

    def __init__(self, path: Path, databases: Sequence[Database], health: StoreHealth) -> None:
        """`databases`: that of the blobs, then that of the index."""
        self._path = path
        self._blobs, self._index = databases
        self._health = health
        self._lock = threading.Lock()
        self.on_repaired: Callable[[], object] = ignore  # called when a part was recreated

    def open(self) -> None:
        """Open or create everything. Raises the errors with which the mirror must not start (TOLERATED)."""
        try:
            check_restored(self._path / RESTORING)
            self._make_folders()
            check_version(self._path)
        except OSError as error:
            self._tolerate(Capability.WRITING, error)
        for capability, database in ((Capability.BLOBS, self._blobs), (Capability.METADATA, self._index)):
            try:
                if self._repair_database(database) is None:
                    _ = database.cache
            except ERRORS as error:
                self._tolerate(capability, error)
                self._health.report_fault(Capability.WRITING, error)

    def read_or(self, capability: Capability, default: T, work: Callable[[], T]) -> T:
        """Return what `work` reads, or `default` on a failing disk; read again if a repair was possible."""
        found = self._health.attempt(capability, default, work)
        if self._health.is_down(capability) and self._repair_for_reading(capability):
            return self._health.attempt(capability, default, work)
        return found

    def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns, which writes; write again if a repair was possible. StoreError."""
        with translated(describe(work)):
            return self._repaired(partial(work, *args, **kwargs))

    def _repaired(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; where a repair was possible, of its second call. Raises ERRORS."""
        try:
            return work()
        except ERRORS as error:
            self.drop_connections()
            if not self._repair_after(error):
                raise
        return work()

    def probe(self) -> None:
        """Test the capabilities that are down, and clear the faults of those that work again."""
        self.recreate_removed()
        self._probe(Capability.METADATA, lambda: self._index.probe(write=False))
        self._probe(Capability.BLOBS, lambda: self._blobs.probe(write=False))
        self._probe(Capability.WRITING, self._test_writing)

    def _probe(self, capability: Capability, work: Callable[[], object]) -> None:
        if not self._health.is_down(capability):
            return
        try:
            self._repaired(work)
        except ERRORS as error:
            self.drop_connections()
            self._health.report_fault(capability, error)
        else:
            self._health.clear_fault(capability)

    def _test_writing(self) -> None:
        """Do each kind of write that the store does: a file with some room, and both databases."""
        # A folder that was never made must not count as removed: making it fails with the true reason.
        (self._path / "partial").mkdir(mode=0o700, exist_ok=True)
        try_allocate(self._path / "partial", PROBE_BYTES)
        for database in (self._blobs, self._index):
            database.probe(write=True)

    def can_write_files(self) -> bool:
        """Return whether files can be written."""
        try:
            try_allocate(self._path / "partial", PROBE_BYTES)
        except OSError:
            return False
        return True

    def drop_connections(self) -> None:
        """Drop this thread's connections to both databases; the next use opens new ones."""
        for database in (self._blobs, self._index):
            database.drop_connection()

    def _repair_for_reading(self, capability: Capability) -> bool:
        """Repair the database behind a capability that is down; return whether the fault is cleared."""
        kinds = [each.kind for each in self._health.faults() if each.capability is capability]
        database = self._index if capability is Capability.METADATA else self._blobs
        if not set(kinds) & {FaultKind.GONE, FaultKind.CORRUPT} or not self._repair([database]):
            return False
        self._health.clear_fault(capability)
        return True

    def _repair_after(self, error: BaseException) -> bool:
        """Repair what made a write or a probe fail; return whether there was something to repair."""
        kind = kind_of(error)
        if kind not in (FaultKind.GONE, FaultKind.CORRUPT):
            return False
        return self._repair([self._blobs, self._index], check=kind is FaultKind.CORRUPT)

    def recreate_removed(self) -> bool:
        """Recreate removed parts of the folder; return whether there were any. Costs a stat for each."""
        if self._blobs.is_current() and self._index.is_current() and (self._path / "partial").is_dir():
            return False
        return self._repair([])

    @property
    def needs_rebuild(self) -> bool:
        """Return whether blobs have files without an entry, after the database of the blobs was lost."""
        return (self._path / REBUILD).exists()

    def finish_rebuild(self) -> None:
        """Remove the mark of lost entries: all files have their entries again."""
        (self._path / REBUILD).unlink(missing_ok=True)

    def _repair(self, suspects: Sequence[Database], *, check: bool = False) -> bool:
        """Recreate what is gone, and those of `suspects` that are corrupt; return whether there was any.

        `check`: read all of them, though no fault is known.
        """
        try:
            with self._exclusive():
                made = self._make_folders()
                if made:
                    check_version(self._path)
                moved = [each for each in (self._blobs, self._index) if not each.is_current()]
                for database in moved:
                    database.reopen()
                if self._index in moved:
                    touch(self._path / BOOKS_LOST)
                repaired = [self._repair_database(each, check=check) for each in suspects]
                recreated = bool(made or moved or any(repaired))
            if recreated:
                self.on_repaired()
            return recreated
        except ERRORS as error:
            self._health.report_fault(Capability.WRITING, error)
            return False

    def _repair_database(self, database: Database, *, check: bool = False) -> bool | None:
        """Recreate a database if it is corrupt; None if it opens and nothing gave reason to check it."""
        try:
            _ = database.cache
        except ERRORS as error:
            if kind_of(error) is not FaultKind.CORRUPT:
                raise
        else:
            if not check and not self._health.faults():
                return None
            if database.is_sound():
                return False
        return self._recreate_database(database)

    def _recreate_database(self, database: Database) -> bool:
        is_blobs = database is self._blobs
        lost, mark = (LOST_WITH_BLOBS, REBUILD) if is_blobs else (LOST_WITH_INDEX, BOOKS_LOST)
        log.error("database corrupt, recreated", database=str(database.folder), lost=lost)
        # The mark first: the next process must know of the loss after a crash here.
        touch(self._path / mark)
        database.quarantine(self._path / "quarantine")
        _ = database.cache
        return True

    def _make_folders(self) -> bool:
        """Create the folders; return whether one of them was missing."""
        path = self._path
        ours = (
            not path.exists()
            or (path / "books").is_dir()
            or not {each.name for each in path.iterdir()} - FOUND
        )
        made = False
        for each in (path, path / "blobs", path / "books", path / "partial"):
            made = made or not each.is_dir()
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        if ours:  # not /srv, or a home: closing a shared folder would take their files from other users
            self._close_folder()
        return made

    def _close_folder(self) -> None:
        """Close the folder to other users. Raises PermissionError, with what to do, for another user's."""
        try:
            os.chmod(self._path, 0o700)
        except PermissionError as error:
            inside = self._path / "cache"
            words = (
                f"it belongs to user {self._path.stat().st_uid}, and this is user {os.geteuid()}: give the "
                f'folder to that user (chown), or let the mirror make one inside it (cache.dir = "{inside}")'
            )
            raise PermissionError(error.errno, words) from None

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold repairs of other threads and processes off: each repair sees what the one before has done."""
        with self._lock:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)

    def _tolerate(self, capability: Capability, error: Exception) -> None:
        """Report a fault at start and go on. Raises `error` if that would hide a mistake."""
        if kind_of(error) not in TOLERATED:
            raise error
        self._health.report_fault(capability, error)


def check_version(path: Path) -> None:
    """Stamp a new folder. StoreError for a layout that is newer than this mirror."""
    stamp = path / "version"
    with suppress(FileNotFoundError):
        text = stamp.read_text().strip()
        found = int(text) if text.isascii() and text.isdigit() else None
        if found is not None and found > VERSION:
            raise StoreError(
                f"its layout is version {found}, and this mirror knows {VERSION}: a newer mirror used it."
                " Run that mirror, choose another folder (--cache-dir), or remove this one and all in it"
            )
        if found is not None:
            return
    replace_file(stamp, f"{VERSION}\n")


def check_restored(restoring: Path) -> None:
    """Raise StoreError if a restore was interrupted. An empty folder is the last trace of a complete one."""
    if restoring.exists():
        try:
            restoring.rmdir()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise StoreError(
                "a backup was not restored to its end: run the same `registry-mirror restore` again, or"
                " remove the folder and all in it"
            ) from None
