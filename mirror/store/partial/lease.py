"""Leases: the right to fetch a small blob or a manifest, held by one process of this machine at a time.

A lease is a lock on an empty file in `partial/`; the content itself stays in memory until it is verified. A
large blob is fetched into a `Partial`, which locks the file of the same name: the two exclude each other.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.store.lock import blob_key, key_path, try_lock


class Lease(Struct, frozen=True):
    """A lock under a key, on the file `path`, by its open `descriptor`."""

    key: str
    path: Path
    descriptor: int

    def release(self) -> None:
        """Unlink the files, then unlock: a process that locks the file afterwards sees that it has no name.

        A fill that did not know the size may have left a data file that no fill will resume. Where the disk
        refuses to unlink, the lock is released nevertheless: other processes wait for it.
        """
        for path in (self.path.with_suffix(".data"), self.path):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        os.close(self.descriptor)


class HeldLease(Protocol):
    """A lease, however it is held."""

    @property
    def key(self) -> str: ...

    def release(self) -> None:
        """Release the lease. Blocks."""
        ...


class BlobLease(Struct, frozen=True):
    """A lease for filling `digest`; `present`: the store has the blob, so there is nothing to fill."""

    lease: HeldLease
    digest: Digest
    present: bool

    @property
    def key(self) -> str:
        """The key of the lease."""
        return self.lease.key

    def release(self) -> None:
        """Release the lease. Blocks."""
        self.lease.release()


def acquire(keys: Sequence[str], folder: Path) -> list[Lease | None]:
    """Acquire a lease for each key, None where another process holds it. OSError: then none is held."""
    leases: list[Lease | None] = []
    try:
        for key in keys:
            path = key_path(key, folder)
            descriptor = try_lock(path)
            leases.append(None if descriptor is None else Lease(key, path, descriptor))
    except BaseException:
        _release(leases)
        raise
    return leases


def acquire_blobs(
    digests: Sequence[Digest], folder: Path, has: Callable[[Digest], bool]
) -> list[BlobLease | None]:
    """Acquire a lease for filling each digest, as `acquire`; `has` tells whether the store has a blob."""
    leases = acquire([blob_key(digest) for digest in digests], folder)
    try:
        return [
            None if lease is None else BlobLease(lease, digest, has(digest))
            for digest, lease in zip(digests, leases, strict=True)
        ]
    except BaseException:
        _release(leases)
        raise


def _release(leases: Sequence[Lease | None]) -> None:
    for lease in leases:
        if lease is not None:
            lease.release()
