"""Files of large blobs in use that are kept open, so that a further reader needs no look-up and no thread.

Readers share the file's description: they all read at offsets of their own. The description bears the mark of
a file that is being read (`mirror.store.lock`) as long as there is a reader, and not longer: a file that is
merely kept open can be evicted.

For the event loop only.
"""

import io
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Generic, TypeVar, cast

from msgspec import Struct

from mirror.store.blobs.entries import OpenBlob, Origin
from mirror.store.lock import try_lock_shared, unlock
from mirror.util.callbacks import zero

K = TypeVar("K")
L = TypeVar("L")

# Files that are kept open, at most, and for how long, in seconds: then the disk is asked again.
MOST_FILES = 32
LONGEST_LIFE_SECONDS = 30.0

# Interval, in seconds, at which expired files are closed, and all after a removal, perhaps by another
# process: a removed file takes space as long as it is open.
SWEEP_SECONDS = 1.0


class KeptFile(Struct, eq=False):
    """A file that is kept open. `descriptor`: -1 once it is closed; `readers`: how many have it open."""

    descriptor: int
    size: int
    origin: Origin
    expires: float
    readers: int = 0

    def open(self) -> OpenBlob | None:
        """Return the blob, open for one more reader; None if the file is being evicted, or cannot be."""
        if not self.readers and not try_lock_shared(self.descriptor):
            return None
        try:
            file = SharedFile(self)
        except OSError:  # no descriptor is free: the disk's own error tells the client
            self._unmark_unread()
            return None
        self.readers += 1
        return OpenBlob(cast(BinaryIO, file), self.size, self.origin)

    def close(self) -> None:
        """Close the file; its readers go on, and the mark ends with the last one."""
        os.close(self.descriptor)
        self.descriptor = -1

    def end_reading(self) -> None:
        """Note that a reader has closed its descriptor."""
        self.readers -= 1
        self._unmark_unread()

    def _unmark_unread(self) -> None:
        if not self.readers and self.descriptor >= 0:
            unlock(self.descriptor)


class SharedFile(io.FileIO):
    """A reader's descriptor of a file that is kept open."""

    def __init__(self, kept: KeptFile) -> None:
        super().__init__(os.dup(kept.descriptor), "rb")
        self.kept = kept

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.kept.end_reading()


class OpenFiles(Generic[K, L]):
    """The files that are kept open, and their links, by key.

    `most`: their number; the one used least recently is closed for a new one. `removal_epoch` returns a
    number that changes when something is removed; after a change all files are closed, soon.
    """

    def __init__(
        self,
        most: int = MOST_FILES,
        clock: Callable[[], float] = time.monotonic,
        removal_epoch: Callable[[], int] = zero,
    ) -> None:
        self._most = most
        self._removal_epoch = removal_epoch
        self._last_epoch = removal_epoch()
        self._clock = clock
        self._files: OrderedDict[K, tuple[KeptFile, L]] = OrderedDict()
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._files)

    def open(self, key: K) -> tuple[OpenBlob, L] | None:
        """Return the blob, open for reading, and its link; None if its file is not kept."""
        found = self._files.get(key)
        if found is None:
            return None
        kept, link = found
        blob = kept.open() if self._clock() < kept.expires else None
        if blob is None:
            self.forget(key)
            return None
        self._files.move_to_end(key)
        return blob, link

    def keep(self, key: K, blob: OpenBlob, link: L) -> None:
        """Keep the file of a blob that was opened just now. The caller still closes its own descriptor."""
        self.forget(key)
        if not self._most:
            return
        while len(self._files) >= self._most:
            self.forget(next(iter(self._files)))
        with suppress(OSError):  # no descriptor is free: clients come first
            # A description of its own: the caller's is marked until the caller closes it.
            descriptor = os.open(f"/proc/self/fd/{blob.file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
            expires = self._clock() + LONGEST_LIFE_SECONDS
            kept = KeptFile(descriptor, blob.size, blob.origin, expires)
            self._files[key] = (kept, link)
            self._sweep_later()

    def forget(self, key: K) -> None:
        """Close a file, if it is kept."""
        found = self._files.pop(key, None)
        if found is not None:
            found[0].close()

    def clear(self) -> None:
        """Close all files."""
        while self._files:
            self.forget(next(iter(self._files)))

    def _sweep_later(self) -> None:
        import asyncio  # commands use the store without an event loop

        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        now, epoch = self._clock(), self._removal_epoch()
        if epoch != self._last_epoch:
            self._last_epoch = epoch
            self.clear()
        for key in [key for key, (kept, _) in self._files.items() if now >= kept.expires]:
            self.forget(key)
        if self._files:
            self._sweep_later()
