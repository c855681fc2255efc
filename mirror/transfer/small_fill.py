"""The fill of a small blob: fetched whole into memory, verified there, sent to waiting clients, then written.

Used for blobs whose size a manifest has named before any client asks. A small fill needs no chunk map and no
growing file, and costs a third of a fill that has these: an image has more small blobs than large ones.
"""

from functools import partial

from msgspec.structs import replace

from mirror.store.blobs.entries import SMALL_BYTES, Origin
from mirror.store.errors import StoreError
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Link
from mirror.store.partial.lease import BlobLease
from mirror.transfer.context import TransferContext
from mirror.transfer.exclusive import acquire
from mirror.transfer.transfer import Phase, Transfer
from mirror.upstream.errors import AnswerTooLong, Failure, WrongBytes, WrongSize
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion

log = get_logger(__name__)


def is_small(link: Link | None) -> bool:
    """Return whether a manifest says that the blob is small."""
    return link is not None and link.size is not None and link.size <= SMALL_BYTES


class SmallFill:
    """One small fill; `run` is called once."""

    def __init__(self, context: TransferContext, upstream: Upstream, transfer: Transfer, link: Link) -> None:
        self._context = context
        self._upstream = upstream
        self._transfer = transfer
        self._repository = transfer.repository
        self._digest = transfer.digest
        self._link = link
        self._is_shared = False  # the bytes came from the shared tier
        transfer.brief = True

    async def run(self) -> None:
        """Fetch the blob; publish its bytes, or None when the blob is in the store.

        Raises UpstreamError or StoreError.
        """
        try:
            lease = await self._lease()
        except StoreError as error:
            self._context.store.room.report_write_failure(error)
            raise
        if lease.present:
            await self._context.store.transfers.leases.release(lease)
            self._transfer.publish(None)
            return
        with self._context.metrics.fills_running.track_inprogress():
            await self._fill(lease)

    async def _lease(self) -> BlobLease:
        return await acquire(partial(self._context.store.transfers.leases.acquire_blob, self._digest))

    async def _fill(self, lease: BlobLease) -> None:
        try:
            data = await self._read_shared() or await self._download()
            self._transfer.phase = Phase.KEEPING
            self._transfer.publish(data)
            content, origin = await self._linked(data)
        except BaseException:
            await run_to_completion(self._context.store.transfers.leases.release(lease))
            raise
        await self._context.store.transfers.put_small_blob(self._repository, lease, content, origin)
        if not self._is_shared:
            self._share(len(data))
        log.debug("fill stored", bytes=len(data), **self._transfer.log_fields())

    async def _linked(self, data: bytes) -> tuple[Content, Origin]:
        """Return the content with a link: confirmed if it came with an account, else named by a manifest."""
        link, origin = replace(self._link, size=len(data)), Origin.PUBLIC
        if self._is_shared:
            await self._context.store.metadata.links.add(self._repository, self._digest, link)
            return Content(link, data), origin
        if self._upstream.uses_account(self._repository.path):
            link, origin = self._context.confirmed(self._upstream, self._repository, link), Origin.PRIVATE
            await self._context.store.metadata.links.add(self._repository, self._digest, link)
        return Content(link, data), origin

    async def _read_shared(self) -> bytes | None:
        """Return the blob as other mirrors have it, if their word, or a link, opens it."""
        words = self._context.shared_words
        if words is None:
            return None
        found = await words.read(self._repository, self._digest, self._link, SMALL_BYTES)
        if found is None:
            return None
        self._link, self._is_shared = found[0], True
        self._context.metrics.shared_fills.labels("tier").inc()
        return found[1]

    def _share(self, size: int) -> None:
        """Write the blob behind, and what the upstream has said by giving it."""
        words = self._context.shared_words
        if words is not None:
            words.publish(self._digest)
            link = self._context.confirmed(self._upstream, self._repository, Link(size=size))
            words.add_link(self._repository, self._digest, link)

    async def _download(self) -> bytes:
        """Return the verified bytes; a blob with wrong bytes is requested a second time.

        WrongSize if the blob is not small, as a manifest says: the next request for it starts a large fill.
        """
        for last in (False, True):
            try:
                data = await self._upstream.get_blob(self._repository.path, self._digest, SMALL_BYTES)
            except AnswerTooLong as error:
                large = replace(self._link, size=SMALL_BYTES + 1)
                await self._context.store.metadata.links.add(self._repository, self._digest, large)
                raise WrongSize(
                    Failure.INVALID, f"{error}, which a manifest says of {self._digest}"
                ) from None
            except WrongBytes as error:
                self._context.metrics.fill_failures.labels("digest").inc()
                if last:
                    raise
                log.warning("wrong bytes from upstream, asking again", reason=str(error))
                continue
            return data
        raise AssertionError("left by return or raise")
