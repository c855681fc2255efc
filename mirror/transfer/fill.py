"""The fill: the one download of a digest that is not here yet. It belongs to no client.

1. lock the partial; while another process has it, readers follow that one's fill (`cache.following`)
2. look in the store again, inside the lock
3. download what is missing (`cache.download`); the first answer confirms the link and tells the size,
   and from then on readers follow the growing file
4. a transfer that breaks goes on from where it stopped, or from another source
5. verify size and digest; adopt into the store; link
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.errors import StoreError
from mirror.store.health import FaultKind, kind_of
from mirror.store.metadata.index import Link
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.partial import Partial
from mirror.transfer.context import TransferContext
from mirror.transfer.corruption import Parts, sole_supplier
from mirror.transfer.download import Download, DownloadOrder
from mirror.transfer.follow import FillFollower
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.upstream.source import Source
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion, stop_task

log = get_logger(__name__)

# Called when readers can follow: with the growing file, with all the bytes, or with None for the store.
Opened = Callable[[GrowingFile | bytes | None], None]


class Fill:
    """Run once; `opened` is called once too."""

    def __init__(
        self,
        context: TransferContext,
        upstream: Upstream,
        repository: Repository,
        digest: Digest,
        *,
        urgent: bool = True,
    ) -> None:
        self._context = context
        self._upstream = upstream
        self._urgent = urgent
        self._running: Download | None = None
        self._repository = repository
        self._digest = digest
        self._link: Link | None = None
        self._growing: GrowingFile | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._verifying: asyncio.Task[None] | None = None

    async def run(self, opened: Opened) -> None:
        """Raises UpstreamError or StoreError, with what was received kept for the next fill."""
        settings = self._context.settings
        following = FillFollower(
            self._context.store,
            self._upstream,
            self._repository,
            self._digest,
            verify_first=settings.verify_first,
        )
        try:
            partial, held = await following.lock(opened)
            self._growing = following.growing
            if partial is not None:
                self._link = held.link
                await self._run(partial, opened, present=held.present)
            elif self._growing is None:
                opened(None)
        except StoreError as error:
            self._context.store.report_write_failure(error)
            raise
        finally:
            if following.growing is not None:
                following.growing.close()
            following.close()

    async def _run(self, partial: Partial, opened: Opened, *, present: bool) -> None:
        try:
            if present:
                opened(None)
                await self._context.store.discard_partial(partial)  # what locking it has made
            else:
                with self._context.metrics.fills_running.track_inprogress():
                    await self._fill(partial, opened)
        except StoreError as error:
            if kind_of(error) is FaultKind.FULL:  # what it takes is better used for something that fits
                await self._discard(partial)
            raise
        finally:
            # However often it is cancelled meanwhile: others wait for the lock.
            await run_to_completion(self._release(partial))

    async def _fill(self, partial: Partial, opened: Opened) -> None:
        if self._growing is not None:
            self._start_verifying()
        parts = await self._download(partial, opened)
        verified, again = await self._verify(), False
        while verified is None:
            await self._blame(parts)
            elsewhere = bool(self._uncaught())
            # While nobody has had a byte of it, it can be asked for again without anybody noticing.
            if not self._growing_file().unread or (again and not elsewhere):
                await self._discard(partial)
                raise self._wrong(elsewhere)
            log.warning("wrong bytes from upstream, asking again", **self._about())
            self._context.metrics.fill_failures.labels("digest").inc()
            await self._growing_file().restart()
            self._start_verifying()
            parts = await self._download(partial, opened)
            verified, again = await self._verify(), True
        await self._judge()
        # In one go, even when the mirror is stopping: in between there would be files that nobody needs.
        await run_to_completion(self._keep(partial, verified))

    async def _keep(self, partial: Partial, verified: VerifiedFile) -> None:
        await self._context.store.adopt(verified)
        await self._context.store.add_link(self._repository, self._digest, Link(size=verified.size))
        await self._discard(partial)

    async def _discard(self, partial: Partial) -> None:
        """That it cannot be is found out by the next fill, and no matter of this one."""
        with suppress(StoreError):
            await self._context.store.discard_partial(partial)

    async def _download(self, partial: Partial, opened: Opened) -> Parts:
        """Until nothing is missing; which source brought what."""
        left = partial.chunks.missing() if partial.chunks else None
        if left == [] and self._growing is None:
            # All was here, left by a fill that was killed before its last step.
            await self._grow(
                partial, await self._upstream.head_blob(self._repository.path, self._digest), opened
            )
        size = self._link.size if self._link else None
        if size is not None and partial.chunks is None:
            # Done while the upstream has not answered yet.
            preparing = self._context.store.preallocate(partial, size, self._context.settings.chunk_size)
            self._preparing = self._context.tasks.spawn(preparing, name=f"prepare {self._digest}")
        order = DownloadOrder(
            self._repository,
            self._digest,
            size=size,
            missing=left,
            linked=self._link is not None,
            settings=self._context.settings,
            alone=self._uncaught(),
        )
        self._running = Download(
            self._context.tasks, self._upstream, order, lambda size: self._grow(partial, size, opened)
        )
        if not self._urgent:
            self._running.wait()
        await self._running.run(self._growing)
        return self._running.parts

    def hurry(self) -> None:
        """Somebody waits for what was fetched ahead of need."""
        self._urgent = True
        if self._running is not None:
            self._running.hurry()

    async def _blame(self, parts: Parts) -> None:
        """Leave alone who sent wrong bytes; while that is not known, all mirrors that had a part."""
        corruption = self._context.corruption
        culprit = sole_supplier(parts, self._growing_file().size)
        if culprit is not None:
            for source in corruption.caught(self._digest, culprit):
                source.health.clear_suspicion()
            self._lied(culprit)
            return
        suspects = [source for source in parts if source is not self._upstream.own]
        names = ", ".join(source.name for source in suspects)
        log.error("wrong bytes from one of several sources", sources=names, **self._about())
        for source in suspects:
            source.suspect()
        await corruption.keep(self._growing_file(), parts)

    def _uncaught(self) -> list[Source]:
        """Whom to ask for it one after another, if it was wrong before."""
        return self._context.corruption.order(self._digest, self._upstream.sources)

    def _wrong(self, elsewhere: bool) -> WrongBytes:
        error = WrongBytes(
            Failure.INVALID, f"{self._repository.upstream} sent bytes that are not {self._digest}"
        )
        error.retry_elsewhere = elsewhere
        return error

    async def _judge(self) -> None:
        """The right blob is here. If it was wrong before, that tells who it was."""
        for source, report_corruption in (
            await self._context.corruption.settle(self._growing_file())
        ).items():
            if report_corruption:
                self._lied(source)
            else:
                source.health.clear_suspicion()

    def _lied(self, source: Source) -> None:
        source.report_corruption(str(self._digest))
        self._context.metrics.source_wrong_bytes.labels(self._upstream.name, source.name).inc()

    async def _grow(self, partial: Partial, announced: int | None, opened: Opened) -> GrowingFile:
        """The upstream has confirmed the blob: from now on readers may follow."""
        size = await self._size(announced)
        settings = self._context.settings
        if self._preparing is not None:
            await self._preparing
        self._growing = await self._context.store.open_growing_file(
            partial, size, settings.chunk_size, verify_first=settings.verify_first
        )
        self._start_verifying()
        opened(self._growing)
        # Nobody waits for it: what comes is not yet there.
        self._context.tasks.spawn(self._context.store.evict_excess(), name=f"make room for {self._digest}")
        return self._growing

    async def _size(self, announced: int | None) -> int:
        """The blob's size: as announced, as a manifest has it, or as a HEAD tells; they must not disagree."""
        known = self._link.size if self._link else None
        size = known if announced is None else announced
        if size is None:
            size = await self._upstream.head_blob(self._repository.path, self._digest)
        upstream = self._repository.upstream
        if size is None:
            raise UpstreamError(Failure.INVALID, f"{upstream} does not tell the size of {self._digest}")
        if known not in (None, size):
            raise UpstreamError(
                Failure.INVALID, f"{upstream} announces {size} bytes, not {known}: {self._digest}"
            )
        return size

    def _start_verifying(self) -> None:
        self._verifying = self._context.tasks.spawn(
            self._growing_file().hash_contiguous(), name=f"verify {self._digest}"
        )

    async def _verify(self) -> VerifiedFile | None:
        """The finished file, released to its readers; None when it is not what its name says."""
        if self._verifying is not None:
            await self._verifying
        return self._growing_file().complete()

    def _growing_file(self) -> GrowingFile:
        if self._growing is None:
            raise AssertionError("no growing file yet")
        return self._growing

    async def _release(self, partial: Partial) -> None:
        await stop_task(self._preparing)
        await stop_task(self._verifying)
        if self._growing is not None:
            self._growing.close()
        await self._context.store.release_partial(partial)

    def _about(self) -> dict[str, object]:
        return {"repository": str(self._repository), "digest": str(self._digest)}
