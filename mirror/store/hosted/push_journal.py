"""The journal of pushed manifests (`<cache folder>/pushes`): one sync for all that are pushed together.

A push writes a file, its name, its entry and its rows in the index, and each of them would need a sync of
its own. What the journal has is on the disk already: the rest is written without a sync, and made durable
later, with many others (`settling`). After a power failure a push whose rows are lost is done again from the
journal, before anything else uses the folder.

A push is in the journal before its transaction ends, so that no client sees what may be lost. Transactions of
hosted repositories are numbered: the number of a push tells whether its transaction is there.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mirror.store.hosted.journal_file import JournalFile, record, records
from mirror.store.hosted.pushes import PushedManifest

# Largest manifest, in bytes, for the journal, where it is written a second time.
JOURNALED_BYTES = 256 * 1024

# Size of one file, in bytes: some thousand manifests.
FILE_BYTES = 1024 * 1024

# Name of the folder in the cache folder.
FOLDER = "pushes"


class PushBatch(Struct, frozen=True):
    """Pushes of one transaction: its number, and its time in seconds since the epoch.

    `data` of a manifest is empty where it is too long for the journal, and its file durable.
    """

    number: int
    moment: float
    pushes: tuple[PushedManifest, ...]


class PushJournal:
    """The journal as one process writes it. Any thread may call; every method blocks. Raises OSError."""

    def __init__(self, path: Path) -> None:
        """`path`: the cache folder."""
        self._folder = path / FOLDER
        self._lock = threading.Lock()
        self._file: JournalFile | None = None

    def add(self, number: int, moment: float, pushes: Sequence[PushedManifest]) -> None:
        """Have the pushes of a transaction on the disk, before it ends."""
        short = tuple(
            each if len(each.data) <= JOURNALED_BYTES else replace(each, data=b"") for each in pushes
        )
        found = record(msgspec.msgpack.encode(PushBatch(number, moment, short)))
        with self._lock:
            try:
                if self._file is None or not self._file.append(found):
                    self._replace(max(FILE_BYTES, len(found))).append(found)
            except BaseException:
                self._leave()
                raise

    def close(self) -> None:
        """Leave the file to those that settle it."""
        with self._lock:
            self._leave()

    def _replace(self, size: int) -> JournalFile:
        self._leave()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._file = JournalFile.create(self._folder, size)
        return self._file

    def _leave(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def batches(data: bytes) -> Iterator[PushBatch]:
    """Yield what a file of the journal has."""
    for each in records(data):
        yield msgspec.msgpack.decode(each, type=PushBatch)
