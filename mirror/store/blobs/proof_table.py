"""The proof table: which large blobs were sent lately, and which of them were proven since.

A client whose digest check failed asks for the same blob again soon, and perhaps of another worker. So the
table is a file of fixed size that all processes map: a look costs no system call. Blobs with the same slot
displace each other, and two processes may write a slot at once. Either costs a hint or a needless proof, and
never a wrong answer.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.invalidation import map_shared

# A request within this many seconds after the blob was sent to its end is a hint that the blob is wrong.
# kubelet waits for up to five minutes between its tries.
RETRY_SECONDS = 600.0

# How long, in seconds, a proof holds: a crowd that pulls one image costs one proof for each of its blobs.
PROVEN_SECONDS = 180.0

# A slot: the first bytes of the digest, and in seconds since the epoch when the blob was last sent to its
# end, when its last proof was begun, and when that was done. Eight bytes each.
SLOT = struct.Struct("=Qddd")
SLOTS = 4096

# The niceness of a thread that proves blobs.
PRIORITY = 10


class ProofTable:
    """The table of one cache folder. For any thread."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Map the file, created if it is new. On a disk that cannot be written, a table of this process."""
        self._clock = clock
        self._map: mmap.mmap | bytearray = bytearray(SLOT.size * SLOTS)
        with suppress(OSError):
            self._map = map_shared(path, SLOT.size * SLOTS)

    def note_sent(self, digest: Digest) -> None:
        """Record that a client was sent the blob to its end."""
        _, begun, done = self._read(digest)
        self._write(digest, self._clock(), begun, done)

    def is_doubtful(self, digest: Digest) -> bool:
        """Return whether a request now is a retry of a client to which the blob may have been sent wrong."""
        sent, begun, _ = self._read(digest)
        return self._within(sent, RETRY_SECONDS) and not self._within(begun, PROVEN_SECONDS)

    def is_pending(self, digest: Digest) -> bool:
        """Return whether a proof was begun lately, by any process, and is not done."""
        _, begun, done = self._read(digest)
        return self._within(begun, PROVEN_SECONDS) and done < begun

    def begin(self, digest: Digest) -> None:
        """Record that a proof begins, or waits for its turn."""
        sent, _, done = self._read(digest)
        self._write(digest, sent, self._clock(), done)

    def finish(self, digest: Digest) -> None:
        """Record the end of a proof that found the blob right."""
        sent, begun, _ = self._read(digest)
        self._write(digest, sent, begun, self._clock())

    def forget(self, digest: Digest) -> None:
        """Forget a blob: its file was wrong, or its proof failed, so nothing is known of the next one."""
        self._write(digest, 0.0, 0.0, 0.0)

    def close(self) -> None:
        """Unmap the file; later calls find an empty table of this process."""
        table, self._map = self._map, bytearray(SLOT.size * SLOTS)
        if isinstance(table, mmap.mmap):
            table.close()

    def _within(self, moment: float, seconds: float) -> bool:
        """Return whether a moment is that recent. One in the future, after a clock was set back, is not."""
        return 0.0 <= self._clock() - moment < seconds

    def _read(self, digest: Digest) -> tuple[float, float, float]:
        key = _key(digest)
        found, sent, begun, done = SLOT.unpack_from(self._map, key % SLOTS * SLOT.size)
        return (sent, begun, done) if found == key else (0.0, 0.0, 0.0)

    def _write(self, digest: Digest, sent: float, begun: float, done: float) -> None:
        key = _key(digest)
        SLOT.pack_into(self._map, key % SLOTS * SLOT.size, key, sent, begun, done)


def _key(digest: Digest) -> int:
    return int(digest.encoded[:16], 16)


def lower_priority() -> None:
    """Let the other threads of this machine go first. For the calling thread alone."""
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) < PRIORITY:
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
