"""The right to fill a small blob, which needs no file for that: a lock with a name, and no more."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.lock import lock_path, try_lock


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of this process to fill a digest; `present` says that nothing is left to be filled."""

    digest: Digest
    path: Path
    descriptor: int
    present: bool

    def release(self) -> None:
        """In this order: whoever locks the file after that sees that it has no name.

        A fill that did not know the size may have left data, with which nobody will go on. Where the disk
        does not let go of the names, the lock is given up all the same: others wait for it.
        """
        for path in (self.path.with_suffix(".data"), self.path):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        os.close(self.descriptor)


def acquire(digests: Sequence[Digest], folder: Path, has: Callable[[Digest], bool]) -> list[Lease | None]:
    """For each the lock for filling it, None where another has it; `has`: what is here. All, or OSError."""
    leases: list[Lease | None] = []
    try:
        for digest in digests:
            path = lock_path(digest, folder)
            lock = try_lock(path)
            leases.append(None if lock is None else Lease(digest, path, lock, has(digest)))
    except BaseException:
        for lease in leases:
            if lease is not None:
                lease.release()
        raise
    return leases
