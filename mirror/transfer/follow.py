"""A fill that another process of this mirror does: its readers here, and what becomes of them.

The lock says who fills, the chunk map how far that is. While the lock is another's, readers here follow the
same file. When it can be had, and the blob is not in the store, who had it was killed or gave up: this
process goes on where it stopped, and readers notice nothing.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.cache_dir import LocalContent
from mirror.store.errors import PartialLost, StoreError
from mirror.store.metadata.index import Link
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.store import Store
from mirror.transfer.exclusive import POLL_SECONDS
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion

log = get_logger(__name__)


# How often it is looked whether who fills is still alive, in seconds.
LOCK_SECONDS = 0.05


class FillFollower:
    """Run `lock` once, `close` at the end. `growing`: what readers here were given, None for nothing."""

    def __init__(
        self, store: Store, upstream: Upstream, repository: Repository, digest: Digest, *, verify_first: bool
    ) -> None:
        self.growing: GrowingFile | None = None
        self._store = store
        self._upstream = upstream
        self._repository = repository
        self._digest = digest
        self._verify_first = verify_first
        self._followed: RemotePartial | None = None

    async def lock(self, opened: Callable[[GrowingFile], None]) -> tuple[Partial | None, LocalContent]:
        """The locked partial, of `growing` if that is one; None when the blob is in the store.

        `opened` is called when readers can follow. Raises UpstreamError when this repository may not have it,
        Lost when what was followed was thrown away, and StoreError.
        """
        while True:
            partial, held = await self._store.lock_partial(self._repository, self._digest)
            if partial is not None or held.present:
                return await self._over(partial, held)
            await self._follow(held.link, opened)

    def close(self) -> None:
        """Once no reader can be added any more; those there are keep what they have open."""
        if self._followed is not None:
            self._followed.close()
            self._followed = None

    async def _follow(self, link: Link | None, opened: Callable[[GrowingFile], None]) -> None:
        """For a while; until it is time to see whether the lock can be had."""
        until = time.monotonic() + LOCK_SECONDS
        while (left := until - time.monotonic()) > 0:
            if self.growing is None:
                await self._begin(link, opened)
            wish = self._look()
            if self.growing is None or wish is not None:
                await asyncio.sleep(POLL_SECONDS)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self.growing.wait_for_reader()

    def _look(self) -> int | None:
        """Let readers have what has come; the offset that they wait at for more."""
        growing, followed = self.growing, self._followed
        if growing is None or followed is None:
            return None
        # In this order: what is verified is marked before it loses its name.
        gone = followed.is_unlinked
        if not growing.update_chunks(followed.refresh()) or (gone and not growing.verified):
            # It was wrong, or there was no room for it: that cannot be told here.
            raise PartialLost(f"{self._digest}: what another process has downloaded was thrown away")
        wish = growing.priority_offset()
        followed.request(wish)
        return wish

    async def _begin(self, link: Link | None, opened: Callable[[GrowingFile], None]) -> None:
        """Let readers follow, if something has come and the repository may have it (invariant 5)."""
        if self._followed is not None and self._followed.is_unlinked:
            self.close()
        if self._followed is None:
            self._followed = await self._store.open_remote_partial(self._digest)
        # Before the first byte the upstream of who fills may still say that there is no such blob.
        if self._followed is None or not self._followed.refresh().received():
            return
        if link is None:
            link = Link(size=await self._upstream.head_blob(self._repository.path, self._digest))
            await self._store.add_link(self._repository, self._digest, link)
        chunks = self._followed.refresh()
        if link.size not in (None, chunks.size) or chunks.verified:
            return  # to be had from the store, in a moment or never
        log.debug("following another process", digest=str(self._digest))
        self.growing = self._store.remote_growing_file(self._followed, verify_first=self._verify_first)
        opened(self.growing)

    async def _over(self, partial: Partial | None, held: LocalContent) -> tuple[Partial | None, LocalContent]:
        """The other process does not fill it any more: it is done, has failed, or is dead."""
        growing, followed = self.growing, self._followed
        if growing is None or followed is None:
            return partial, held
        try:
            self._look()
            if partial is not None and not held.present and partial.is_continuation_of(followed):
                log.info("going on with what another process began", digest=str(self._digest))
                growing.take_over(partial)
                return partial, held
            if not growing.verified:
                raise PartialLost(f"{self._digest}: another process could not keep it")
        except BaseException:
            await self._leave(partial)
            raise
        await self._leave(partial)
        return None, held

    async def _leave(self, partial: Partial | None) -> None:
        """Nothing is left to be filled, or not for these readers."""
        if partial is not None:
            await run_to_completion(self._give_up(partial))

    async def _give_up(self, partial: Partial) -> None:
        """Also where the disk does not let go of the names: others wait for the lock."""
        with suppress(StoreError):
            await self._store.discard_partial(partial)
        await self._store.release_partial(partial)
