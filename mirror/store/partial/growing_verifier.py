"""The verifier of a growing file: it hashes what has come, and releases a blob that has its digest."""

import asyncio
from collections.abc import Sequence

from mirror.oci.ranges import Span
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.partial import Hasher, Partial
from mirror.util.tasks import run_to_completion


class GrowingVerifier:
    """One hash over a growing file, by the writer where its bytes continue it, else from the disk."""

    def __init__(self, file: GrowingFile, partial: Partial, executor: DiskExecutor) -> None:
        self.file = file
        self._partial = partial
        self._executor = executor
        self._hasher = Hasher(file.digest)
        self._hashing = False
        self._changed = asyncio.Event()

    def claim(self, offset: int) -> Hasher | None:
        """Return the hasher to one who has the bytes at `offset` in memory, if these are the next ones.

        The hasher is to be given back by `release`.
        """
        if self._hashing or self._hasher.offset != offset:
            return None
        self._hashing = True
        return self._hasher

    def release(self) -> None:
        """Take the hasher back."""
        self._hashing = False

    def wake(self) -> None:
        """Have `hash_contiguous` look again: bytes have come, or all of the blob is wanted."""
        self._changed.set()

    async def hash_contiguous(self) -> None:
        """Hash the bytes that the writer did not, as they become contiguous, until all are hashed.

        A blob that is read by ranges is hashed once all of it is wanted. Runs beside writes. StoreError.
        """
        file = self.file
        while self._hasher.offset < file.size:
            waits = self._hashing or file.chunks.contiguous() <= self._hasher.offset
            if waits or not file.demand.whole:
                self._changed.clear()
                await self._changed.wait()
                continue
            self._hashing = True
            try:
                stop = file.chunks.contiguous()
                await run_to_completion(self._executor.run(self._partial.hash_until, self._hasher, stop))
            finally:
                self._hashing = False

    def complete(self) -> VerifiedFile | None:
        """Release a blob that has its digest to the readers, and return it for adoption; else None."""
        if self._hasher.offset != self.file.size or not self._hasher.matches():
            return None
        self.file.verified = True
        self.file.chunks.set_verified()
        self.file.wake_readers()
        return self._partial.verified_file()

    async def span_hashes(self, spans: Sequence[Span]) -> list[bytes]:
        """Hash spans as `Partial.span_hashes`; once all bytes are here. StoreError."""
        return await run_to_completion(self._executor.run(self._partial.span_hashes, spans))

    def restart(self) -> None:
        """Hash from the beginning: the file has been emptied."""
        self._hasher = Hasher(self.file.digest)
