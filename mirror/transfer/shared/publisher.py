"""Writing behind: verified blobs of this mirror go to the object store, a few at a time.

A large blob is uploaded while its fill runs, if an upload is free, and completed once it is verified: then
the other mirrors find it as soon as it is here.

What could not be written while the object store failed is written once it answers again, as far as the blob
is still here. The list of such blobs is in memory: a restart forgets it, and costs the other mirrors a
download.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.shared.content import verified
from mirror.shared.errors import TierError
from mirror.shared.health import unlimited
from mirror.shared.tier import FillClaim, SharedTier
from mirror.store.blobs.entries import OpenBlob
from mirror.store.errors import StoreError
from mirror.store.partial.growing import GrowingFile
from mirror.store.parts.interfaces import StoreParts
from mirror.transfer.shared.streaming import UploadAbandoned, follow_fill
from mirror.transfer.transfer import Transfer
from mirror.upstream.errors import UpstreamError
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

# Uploads at a time: each takes some 20 MiB of memory.
UPLOADS = 2

# The most blobs that wait; beyond it the oldest are forgotten.
MAX_PENDING = 10_000

# The smallest blob, in bytes, that is uploaded while its fill runs: one of several parts.
STREAMED_BYTES = 8 * 1024 * 1024

# Interval, in seconds, at which uploads try a failing object store again.
RETRY_SECONDS = 1.0

READ_BYTES = 1024 * 1024


class Publisher:
    """The blobs that wait to be written to the object store."""

    def __init__(self, tier: SharedTier, store: StoreParts, tasks: Tasks, metrics: Metrics) -> None:
        self._tier = tier
        self._store = store
        self._tasks = tasks
        self._metrics = metrics
        self._pending: OrderedDict[Digest, FillClaim | None] = OrderedDict()
        self._workers = 0
        self._streams: dict[Digest, asyncio.Task[None]] = {}

    def follow(self, transfer: Transfer) -> None:
        """Upload the blob of a fill that begins, as its bytes come; `add` it when the fill has ended."""
        if self._tier.usable and len(self._streams) < UPLOADS and transfer.digest not in self._streams:
            digest = transfer.digest
            with unlimited():
                stream = self._tasks.spawn(self._stream(transfer), name=f"upload {digest} as it comes")
            self._streams[digest] = stream
            stream.add_done_callback(lambda _: self._streams.pop(digest, None))

    def add(self, digest: Digest, claim: FillClaim | None) -> None:
        """Publish a blob that is in the store; release the claim afterwards, or when that fails."""
        if (known := self._pending.pop(digest, None)) is not None:
            known.release()
        self._pending[digest] = claim
        while len(self._pending) > MAX_PENDING:
            _release(self._pending.popitem(last=False)[1])
        self._metrics.shared_pending.set(len(self._pending))
        if self._workers < UPLOADS:
            self._workers += 1
            with unlimited():
                self._tasks.spawn(self._work(), name="write to the shared tier")

    async def _work(self) -> None:
        try:
            while self._pending:
                if not self._tier.usable:
                    self._release_all()
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                digest, claim = self._pending.popitem(last=False)
                self._metrics.shared_pending.set(len(self._pending))
                try:
                    if not await self._publish(digest) and digest not in self._pending:
                        self._pending[digest] = None
                finally:
                    _release(claim)
        finally:
            self._workers -= 1

    def _release_all(self) -> None:
        """Let others fetch what cannot be written for now."""
        for digest, claim in self._pending.items():
            _release(claim)
            self._pending[digest] = None

    async def _publish(self, digest: Digest) -> bool:
        """Write a blob, unless it is there or no longer here; return False to try again."""
        if (stream := self._streams.get(digest)) is not None:
            await asyncio.wait([stream])
        if await self._tier.find(digest) is not None:
            return True
        try:
            blob = await self._store.content.open_any(digest)
        except StoreError:
            return True
        if blob is None:
            return True
        end_reading = self._store.content.begin_reading(digest)
        try:
            content = verified(digest, blob.size, lambda: self._chunks(blob))
            return await self._tier.publish(content)
        except (TierError, StoreError) as error:
            log.warning("blob not written to the shared tier", digest=str(digest), reason=str(error))
            return True
        finally:
            end_reading()
            blob.file.close()

    async def _stream(self, transfer: Transfer) -> None:
        """Upload a blob as it comes; nothing of it stays if that ends before the blob is verified."""
        try:
            growing = await transfer.wait_content()
        except (UpstreamError, StoreError):
            return
        if not isinstance(growing, GrowingFile) or growing.size < STREAMED_BYTES:
            return
        chunks = lambda: follow_fill(transfer, growing, self._store.executor)  # noqa: E731
        try:
            await self._tier.publish(verified(transfer.digest, growing.size, chunks))
        except (UploadAbandoned, TierError, StoreError) as error:
            log.debug("upload abandoned", digest=str(transfer.digest), reason=str(error))

    async def _chunks(self, blob: OpenBlob) -> AsyncIterator[bytes]:
        while chunk := await self._store.executor.run(blob.file.read, READ_BYTES):
            yield chunk


def _release(claim: FillClaim | None) -> None:
    if claim is not None:
        claim.release()


def _close(blob: OpenBlob | None) -> None:
    if blob is not None:
        blob.file.close()
