"""The prover: verifies large blobs in the background while they are in use, and quarantines wrong ones.

A large blob is not hashed when it is sent: that would cost more than sending it. It is proven

    retry   when the same client requests all of it again soon after it was sent to its end, which is what a
            client does whose digest check failed: at once, and the clients that ask again get the end of the
            blob with the result. Other clients wait for nothing
    use     when it is requested and was not verified for a day: slowly, and no reader waits

One blob at a time, in a thread of low priority. A wrong one is a miss for all workers from then on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from itertools import islice

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.fsck import Fsck, FsckCursor, FsckStep
from mirror.store.blobs.proof_table import ProofTable, lower_priority
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.metadata.blob_table import BlobRow
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.rate_limiter import RateLimiter
from mirror.util.tasks import Tasks
from mirror.util.ttl_cache import TTLCache

log = get_logger(__name__)

# A blob in use is proven after this many seconds, at this many bytes per second: some hundredths of a
# processor.
USE_SECONDS = 24 * 3600.0
USE_RATE = 16 * 1024 * 1024

# The most blobs that wait for each kind of proof, and that are known to need none today.
QUEUE = 256
SEEN = 10_000

# Steps, each of at most 1 MiB, that the thread takes at a time.
STEPS = 8

# How long a reader waits at most with the end of a blob for the result, and how often it looks, in seconds.
# HOLD_RATE: bytes a second of a proof on a slow disk. Clients wait for bytes for longer than
# MOST_HOLD_SECONDS: containerd's limit for an image without progress is five minutes.
HOLD_SECONDS = 5.0
HOLD_RATE = 64 * 1024 * 1024
MOST_HOLD_SECONDS = 120.0
POLL_SECONDS = 0.02


class ProofReason(StrEnum):
    """The reasons of a proof."""

    RETRY = "retry"
    USE = "use"


class Proof(Struct, frozen=True):
    """A finished proof. `right` is False if the file was wrong, and is in quarantine now."""

    digest: Digest
    reason: ProofReason
    right: bool


def hold_seconds(size: int) -> float:
    """Return how long a reader waits at most for the proof of a blob of `size` bytes."""
    return min(HOLD_SECONDS + size / HOLD_RATE, MOST_HOLD_SECONDS)


class PendingProof(Struct, frozen=True):
    """A proof that runs while a reader sends the blob. `is_wrong`: whether the file is in quarantine.

    `seconds`: how long the reader waits for the result; with 0 it only looks whether it is there already.
    """

    is_pending: Callable[[], bool]
    is_wrong: Callable[[], Awaitable[bool]]
    seconds: float = HOLD_SECONDS

    async def wait(self) -> bool:
        """Wait for the result, for a limited time; return False if the file was found wrong."""
        deadline = time.monotonic() + self.seconds
        while self.is_pending():
            if time.monotonic() >= deadline:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return not await self.is_wrong()


class Prover:
    """The proofs of one process. For the event loop; the table of proofs is that of all processes."""

    def __init__(
        self, blobs: BlobStore, table: ProofTable, tasks: Tasks, on_proven: Callable[[Proof], object] = ignore
    ) -> None:
        self._blobs = blobs
        self._table = table
        self._tasks = tasks
        self._on_proven = on_proven
        self._queues: dict[ProofReason, dict[Digest, None]] = {each: {} for each in ProofReason}
        self._proven_today: TTLCache[Digest, bool] = TTLCache(USE_SECONDS, SEEN)
        self._working = False

    def note_sent(self, digest: Digest, client: str) -> None:
        """Record that a client was sent a large blob to its end."""
        self._table.note_sent(digest, client)

    def note_use(self, digest: Digest, client: str | None) -> bool:
        """Queue a proof of a large blob that is going to be sent, if one is due.

        `client`: the address of a client that requests all of the blob, None for requests of other kinds.
        Return whether the reader must wait for a proof, of this process or another.
        """
        retry = client is not None and self._table.is_retry(digest, client)
        if retry and not self._table.was_begun(digest):
            if self._enqueue(ProofReason.RETRY, digest):
                self._table.begin(digest)
        elif self._proven_today.get(digest) is None and self._enqueue(ProofReason.USE, digest):
            self._proven_today.put(digest, True)
        return retry and self._table.is_pending(digest)

    def is_pending(self, digest: Digest) -> bool:
        """Return whether a proof of a retry is not done, in this process or another."""
        return self._table.is_pending(digest)

    def _enqueue(self, reason: ProofReason, digest: Digest) -> bool:
        """Queue a proof; False where too many wait."""
        queue = self._queues[reason]
        if len(queue) >= QUEUE and digest not in queue:
            return False
        queue[digest] = None
        if not self._working:
            self._working = True
            self._tasks.spawn(self._work(), name="prove blobs")
        return True

    async def _work(self) -> None:
        """Prove until both queues are empty."""
        executor = DiskExecutor(1, initialize=lower_priority)
        try:
            while any(self._queues.values()):
                await self._prove_retried(executor)
                if (digest := _first(self._queues[ProofReason.USE])) is not None:
                    await self._prove(executor, ProofReason.USE, digest)
        finally:
            self._working = False
            await executor.close(self._blobs.close)

    async def _prove_retried(self, executor: DiskExecutor) -> None:
        queue = self._queues[ProofReason.RETRY]
        while queue:
            digest = next(iter(queue))
            # Stays in the queue until it is proven, so that it is not queued twice.
            try:
                await self._prove(executor, ProofReason.RETRY, digest)
            finally:
                del queue[digest]

    async def _prove(self, executor: DiskExecutor, reason: ProofReason, digest: Digest) -> None:
        try:
            right = await self._verify(executor, reason, digest)
        except StoreError as error:
            log.debug("proof failed", digest=str(digest), reason=str(error))
            right = None
        if reason is ProofReason.RETRY and right:
            self._table.finish(digest)
        elif reason is ProofReason.RETRY or right is False:
            self._table.forget(digest)
        if right is not None:
            self._on_proven(Proof(digest, reason, right))

    async def _verify(self, executor: DiskExecutor, reason: ProofReason, digest: Digest) -> bool | None:
        """Return whether the blob's file is right; None if there is none, or it was verified lately."""
        row = await executor.run(self._blobs.table.row, str(digest))
        if row is None:
            return None
        if reason is ProofReason.USE and await executor.run(self._is_recent, row):
            return None
        steps = Fsck(self._blobs.folder, self._blobs, FsckCursor(), repair=True, in_use=True).check(row)
        limiter = RateLimiter(USE_RATE if reason is ProofReason.USE else 0)
        while taken := await executor.run(lambda: list(islice(steps, STEPS))):
            if (found := taken[-1].finding) is not None:
                log.error(
                    "blob corrupt on disk, fetched again at the next request",
                    digest=str(digest),
                    wrong=found.damage.value,
                    done=found.repair,
                    found_by=reason.value,
                )
                return False
            await self._pause(executor, reason, limiter, taken)
        return True

    async def _pause(
        self, executor: DiskExecutor, reason: ProofReason, limiter: RateLimiter, taken: list[FsckStep]
    ) -> None:
        """Keep a slow proof to its rate, and let those that readers wait for go first."""
        if reason is ProofReason.USE:
            await asyncio.sleep(limiter.pause(sum(step.read for step in taken)))
            await self._prove_retried(executor)

    def _is_recent(self, row: BlobRow) -> bool:
        return 0.0 <= time.time() - self._blobs.table.verified_at(row) < USE_SECONDS


def _first(queue: dict[Digest, None]) -> Digest | None:
    """Take the first digest from the queue."""
    digest = next(iter(queue), None)
    if digest is not None:
        del queue[digest]
    return digest
