"""Following a fill of another process of this mirror: readers here, and continuing the fill if that dies.

The lock tells which process fills, the chunk map how far the fill has come. While another process holds the
lock, readers here follow the same file. When the lock is free and the blob is not in the store, the other
process was killed or gave up: this process continues where that fill stopped, and readers notice nothing.
"""

import asyncio
import time
from contextlib import suppress

from mirror.store.blobs.entries import Origin
from mirror.store.errors import PartialLost, StoreError
from mirror.store.links.content import LocalContent
from mirror.store.metadata.index import Link
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.partial.remote_view import RemoteView
from mirror.transfer.context import TransferContext
from mirror.transfer.exclusive import acquire, poll
from mirror.transfer.transfer import Transfer
from mirror.upstream.errors import FINAL, UpstreamError
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion

log = get_logger(__name__)


# Interval, in seconds, at which the lock is tried: whether the other process is still alive.
LOCK_SECONDS = 0.05


class FillFollower:
    """A wait for the lock of a digest, which another process holds, with readers that follow meanwhile.

    `lock` is called once, `close` at the end. `writer`: fills the file that readers here follow, once this
    process goes on where the other one stopped.
    """

    def __init__(self, context: TransferContext, upstream: Upstream, transfer: Transfer) -> None:
        self.writer: GrowingWriter | None = None
        self._view: RemoteView | None = None
        self._context = context
        self._content = context.store.content
        self._metadata = context.store.metadata
        self._transfers = context.store.transfers
        self._upstream = upstream
        self._transfer = transfer
        self._repository = transfer.repository
        self._digest = transfer.digest
        self._public = not upstream.uses_account(transfer.repository.path)
        self._remote: RemotePartial | None = None
        self._link: Link | None = None  # the one that the repository has

    async def lock(self, link: Link | None) -> tuple[Partial | None, LocalContent]:
        """Wait for the lock; return the locked partial, None when the blob is in the store.

        `link`: the one that the repository has. Raises UpstreamError when the repository may not have the
        blob, PartialLost when the followed partial was thrown away, and StoreError.
        """
        self._link = link
        await self._follow()
        return await self._finish(*await acquire(self._try_lock, self._follow))

    async def _try_lock(self) -> tuple[Partial | None, LocalContent] | None:
        partial, local = await self._transfers.lock_partial(
            self._repository, self._digest, public=self._public
        )
        self._link = local.link
        return (partial, local) if partial is not None or local.present else None

    @property
    def published(self) -> bool:
        """Return whether readers here follow a file."""
        return self._view is not None

    def close(self) -> None:
        """Stop following: no reader can be added any more; existing readers keep their open files."""
        if self._view is not None:
            self._view.file.close()
        self._close_remote()

    def _close_remote(self) -> None:
        if self._remote is not None:
            self._remote.close()
            self._remote = None

    async def _follow(self) -> None:
        """Serve readers for LOCK_SECONDS, until the lock is to be tried again."""
        until = time.monotonic() + LOCK_SECONDS
        while (left := until - time.monotonic()) > 0:
            if self._view is None:
                await self._begin(self._link)
            wanted = self._observe()
            if self._view is None or wanted is not None:
                await poll()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._view.file.wait_for_reader()

    def _observe(self) -> int | None:
        """Release received bytes to readers; return the offset at which they wait for more, if any."""
        view, remote = self._view, self._remote
        if view is None or remote is None:
            return None
        # In this order: a verified partial is marked as such before it loses its name.
        is_unlinked = remote.is_unlinked
        if not view.update(remote.refresh()) or (is_unlinked and not view.file.verified):
            # The bytes were wrong, or the disk was full: this process cannot tell which.
            raise PartialLost(f"{self._digest}: what another process has downloaded was thrown away")
        wanted = view.priority_offset()
        remote.request(wanted, whole=self._transfer.demand.whole)
        return wanted

    async def _begin(self, link: Link | None) -> None:
        """Let readers follow, if bytes have arrived and the repository may have the blob (invariant 5)."""
        if self._remote is not None and self._remote.is_unlinked:
            self._close_remote()
        if self._remote is None:
            self._remote = await self._transfers.open_remote_partial(self._digest)
        # Before the first byte the upstream may still answer the other process that there is no such blob.
        if self._remote is None or not self._remote.refresh().received():
            return
        if not self._opens(link, self._remote.chunks.origin):
            link = await self._confirm(link)
        chunks = self._remote.refresh()
        if chunks.verified:
            return  # not to be followed: the blob will be in the store in a moment
        log.debug("following another process's fill", digest=str(self._digest))
        verify_first = self._context.settings.verify_first
        self._view = RemoteView(self._remote, self._transfer.demand, verify_first=verify_first)
        self._transfer.publish(self._view.file)

    def _opens(self, link: Link | None, origin: Origin) -> bool:
        """Return whether the link opens what the other process fetches, for whatever repository it does."""
        if link is None or self._context.link_ttl(self._upstream, link) <= 0:
            return False
        return self._content.opens(link, origin)

    async def _confirm(self, link: Link | None) -> Link:
        """Ask the upstream; without an answer a link is believed that was confirmed before."""
        try:
            claimed = None if self._remote is None else self._remote.chunks.size
            size = await self._upstream.head_blob(self._repository.path, self._digest, claimed)
        except UpstreamError as error:
            if link is None or link.confirmed is None or error.failure in FINAL:
                raise
            self._transfer.unanswered = str(error)
            return link
        confirmed = self._context.confirmed(self._upstream, self._repository, Link(size=size))
        await self._metadata.links.add(self._repository, self._digest, confirmed)
        return confirmed

    async def _finish(
        self, partial: Partial | None, local: LocalContent
    ) -> tuple[Partial | None, LocalContent]:
        """Stop following: the other process is done, has failed, or is dead. Returns as `lock`."""
        view, remote = self._view, self._remote
        if view is None or remote is None:
            return partial, local
        try:
            self._observe()
            if partial is not None and not local.present and partial.is_continuation_of(remote):
                log.info("continuing another process's fill", digest=str(self._digest))
                view.take_over(partial)
                self.writer = self._transfers.growing_writer(view.file, partial)
                return partial, local
            if not view.file.verified:
                raise PartialLost(f"{self._digest}: another process could not keep it")
        except BaseException:
            await self._release(partial)
            raise
        await self._release(partial)
        return None, local

    async def _release(self, partial: Partial | None) -> None:
        """Give up a lock that has no use: nothing is left to fill, or not for these readers."""
        if partial is not None:
            await run_to_completion(self._discard(partial))

    async def _discard(self, partial: Partial) -> None:
        """Discard and unlock `partial`; unlock even if the discard fails: others wait for the lock."""
        with suppress(StoreError):
            await self._transfers.discard_partial(partial)
        await self._transfers.release_partial(partial)
