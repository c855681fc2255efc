"""The proof table: which large blobs were sent lately, to which clients, and which were proven since.

A client whose digest check failed asks for the same blob again soon, and perhaps of another worker. So the
table is a file of fixed size that all processes map: a look costs no system call. It has two parts: proofs by
blob, and by blob and client when the client was last sent the blob to its end. Entries with the same slot
displace each other, and two processes may write a slot at once. Either costs a hint or a needless proof, and
never a wrong answer.
"""

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.invalidation import map_shared

# A request within this many seconds after the blob was sent to its end to the same client is a hint that the
# blob is wrong. kubelet waits for up to five minutes between its tries.
RETRY_SECONDS = 600.0

# How long, in seconds, a proof holds: a crowd that pulls one image costs one proof for each of its blobs.
PROVEN_SECONDS = 180.0

# The slot of a blob: the first bytes of the digest, and in seconds since the epoch when its last proof was
# begun, and when that was done. Eight bytes each.
PROOF = struct.Struct("=Qdd")
PROOFS = 4096

# The slot of a blob and a client: a hash of both, and when the client was last sent the blob to its end.
# As many as 400 clients fill with images of 40 large layers within RETRY_SECONDS.
SENT = struct.Struct("=Qd")
SENT_SLOTS = 16 * 1024
SENT_AT = PROOF.size * PROOFS

TABLE_BYTES = SENT_AT + SENT.size * SENT_SLOTS

# The niceness of a thread that proves blobs.
PRIORITY = 10


class ProofTable:
    """The table of one cache folder. For any thread."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Map the file, created if it is new. On a disk that cannot be written, a table of this process."""
        self._clock = clock
        self._map: mmap.mmap | bytearray = bytearray(TABLE_BYTES)
        with suppress(OSError):
            self._map = map_shared(path, TABLE_BYTES)

    def note_sent(self, digest: Digest, client: str) -> None:
        """Record that a client was sent the blob to its end."""
        key = _sent_key(digest, client)
        SENT.pack_into(self._map, _sent_at(key), key, self._clock())

    def is_retry(self, digest: Digest, client: str) -> bool:
        """Return whether a request now is a retry of a client to which the blob may have been sent wrong."""
        key = _sent_key(digest, client)
        found, sent = SENT.unpack_from(self._map, _sent_at(key))
        return bool(found == key) and self._within(sent, RETRY_SECONDS)

    def was_begun(self, digest: Digest) -> bool:
        """Return whether a proof was begun lately, by any process: its result still holds, or will soon."""
        return self._within(self._read(digest)[0], PROVEN_SECONDS)

    def is_pending(self, digest: Digest) -> bool:
        """Return whether a proof was begun lately, by any process, and is not done."""
        begun, done = self._read(digest)
        return self._within(begun, PROVEN_SECONDS) and done < begun

    def begin(self, digest: Digest) -> None:
        """Record that a proof begins, or waits for its turn."""
        self._write(digest, self._clock(), self._read(digest)[1])

    def finish(self, digest: Digest) -> None:
        """Record the end of a proof that found the blob right."""
        self._write(digest, self._read(digest)[0], self._clock())

    def forget(self, digest: Digest) -> None:
        """Forget the proofs of a blob: its file was wrong, or a proof failed, so nothing is known of it."""
        self._write(digest, 0.0, 0.0)

    def close(self) -> None:
        """Unmap the file; later calls find an empty table of this process."""
        table, self._map = self._map, bytearray(TABLE_BYTES)
        if isinstance(table, mmap.mmap):
            table.close()

    def _within(self, moment: float, seconds: float) -> bool:
        """Return whether a moment is that recent. One in the future, after a clock was set back, is not."""
        return 0.0 <= self._clock() - moment < seconds

    def _read(self, digest: Digest) -> tuple[float, float]:
        key = _key(digest)
        found, begun, done = PROOF.unpack_from(self._map, key % PROOFS * PROOF.size)
        return (begun, done) if found == key else (0.0, 0.0)

    def _write(self, digest: Digest, begun: float, done: float) -> None:
        key = _key(digest)
        PROOF.pack_into(self._map, key % PROOFS * PROOF.size, key, begun, done)


def _key(digest: Digest) -> int:
    return int(digest.encoded[:16], 16)


def _sent_key(digest: Digest, client: str) -> int:
    """Return a hash of blob and client: the table keeps no address."""
    both = hashlib.blake2b(f"{digest} {client}".encode(), digest_size=8)
    return int.from_bytes(both.digest())


def _sent_at(key: int) -> int:
    return SENT_AT + key % SENT_SLOTS * SENT.size


def lower_priority() -> None:
    """Let the other threads of this machine go first. For the calling thread alone."""
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) < PRIORITY:
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
