"""The fill: the one download of a digest that is not in the store yet. Clients share a fill; none owns it.

1. Lease: lock the partial. While another process holds the lock, readers follow that process's fill
   (`transfer.follow`). Look in the store again, with the lock held.
2. Size: ask a source for the first bytes (`transfer.download`). The first response confirms the link and has
   the size. Where a manifest has named one, the file is prepared while the request is on its way.
3. Open the growing file, which readers follow from then on.
4. Download the missing bytes. A transfer that breaks is resumed where it stopped, or from another source.
5. Verify size and digest.
6. Adopt the file into the store, and add the link.

`transfer.transfer` has the state that the fill shares with its download and its clients.
"""

import asyncio
from contextlib import aclosing, suppress

from msgspec.structs import replace

from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.errors import StoreError
from mirror.store.health import FaultKind, kind_of
from mirror.store.metadata.index import Link
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.partial import Partial
from mirror.transfer.context import TransferContext
from mirror.transfer.corruption import Parts
from mirror.transfer.download import Download
from mirror.transfer.download_order import DownloadOrder
from mirror.transfer.follow import FillFollower
from mirror.transfer.sources.blame import Blame
from mirror.transfer.sources.compressed import decode
from mirror.transfer.sources.rest import LAZY_CHUNK, RestPolicy, RestWay
from mirror.transfer.sources.unsized import UnsizedDownload
from mirror.transfer.transfer import Phase, Transfer
from mirror.upstream.errors import Failure, SizeUnknown, UpstreamError, WrongSize
from mirror.upstream.http.encodings import GZIP
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion, stop_task

log = get_logger(__name__)


class Fill:
    """One fill; `run` is called once."""

    def __init__(self, context: TransferContext, upstream: Upstream, transfer: Transfer) -> None:
        self._context = context
        self._upstream = upstream
        self._transfer = transfer
        self._repository = transfer.repository
        self._digest = transfer.digest
        self._link: Link | None = None
        self._shares = context.store.room.shares
        self._blame = Blame(context, upstream, transfer.repository, transfer.digest)
        self._public = not upstream.uses_account(transfer.repository.path)
        self._answered_at: float | None = None  # when the upstream was first asked, if it has answered
        self._active_download: Download | None = None
        self._writer: GrowingWriter | None = None
        self._size_claimed = False  # no response to a GET has told the size
        self._decoded = False
        self._released = False
        self._verifying: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Fill the blob. Raises UpstreamError or StoreError; the next fill resumes what was received."""
        follower = FillFollower(self._context, self._upstream, self._transfer)
        try:
            partial, local = await self._context.store.transfers.lock_partial(
                self._repository, self._digest, public=self._public
            )
            if partial is None and not local.present:  # another process fills the blob
                partial, local = await follower.lock(local.link)
            if partial is not None:
                self._link = local.link
                await self._run(partial, follower.writer, present=local.present)
            elif not follower.published:
                self._transfer.publish(None)
        except StoreError as error:
            self._context.store.room.report_write_failure(error)
            raise
        finally:
            follower.close()

    async def _run(self, partial: Partial, writer: GrowingWriter | None, *, present: bool) -> None:
        try:
            if present:
                self._transfer.publish(None)
                # The files that locking has made.
                await self._context.store.transfers.discard_partial(partial)
            else:
                with self._context.metrics.fills_running.track_inprogress():
                    log.debug(
                        "fill started", prefetch=not self._transfer.attended, **self._transfer.log_fields()
                    )
                    await self._shares.check(
                        self._repository, self._digest, self._link.size if self._link else None
                    )
                    await self._fill(partial, writer)
        except WrongSize:
            if not self._decoded:
                await self._discard(partial)
                await self._forget_size()
            raise
        except StoreError as error:
            if kind_of(error) is FaultKind.FULL:  # the space is better used for a blob that fits
                await self._discard(partial)
            raise
        finally:
            # However often this task is cancelled meanwhile: other fills wait for the lock.
            await run_to_completion(self._release(partial))

    async def _fill(self, partial: Partial, writer: GrowingWriter | None) -> None:
        """Size, open, download, verify, adopt."""
        if writer is not None:  # readers follow already what another process has begun
            self._begin_writing(writer)
        writer, parts = await self._download(partial)
        while writer.file.missing():  # of a blob that is read by ranges, and none more was asked for
            if not self._transfer.attended:
                writer.file.close()  # in the same turn of the loop: no reader can be added any more
                return
            writer, parts = await self._download(partial)
        verified, retried = await self._verify(writer), False
        while verified is None:
            await self._settle_wrong_bytes(partial, writer, parts, retried=retried)
            await writer.restart()
            self._begin_verifying(writer)
            writer, parts = await self._download(partial)
            verified, retried = await self._verify(writer), True
        await self._blame.judge_suspects(writer.verifier)
        # To completion, even when the mirror is stopping: half of it would leave orphaned files.
        await run_to_completion(self._adopt(partial, verified))

    async def _download(self, partial: Partial) -> tuple[GrowingWriter, Parts]:
        """Download until nothing is missing; return the file's writer, and the parts that each source sent.

        The first time, the answer of the first source tells the size, with which the file is opened.
        """
        self._transfer.phase, began = Phase.DOWNLOADING, self._context.clock()
        order = self._order(partial)
        if self._writer is None and order.missing is not None and not order.demand.gaps(order.missing):
            # Nothing is missing: an earlier fill was killed before its last step, or left what is asked for.
            await self._open(partial, await self._confirm_complete(partial))
        self._active_download = download = Download(
            self._context.tasks, self._upstream, order, self._transfer, self._rest_policy()
        )
        async with aclosing(download):
            if self._writer is None:
                download.begin()
                preparing = self._begin_preparing(partial)
                try:
                    announced = await download.announced_size()
                finally:
                    if preparing is not None and not preparing.done():
                        await run_to_completion(_finished(preparing))
                try:
                    await self._open(partial, announced)
                except (UpstreamError, StoreError) as error:
                    await download.refuse(error)
                    if not isinstance(error, SizeUnknown):
                        raise
            if self._writer is not None:
                await download.run(self._writer)
        if self._writer is None:
            unsized = UnsizedDownload(self._context, self._upstream, self._repository, self._digest, partial)
            await self._open(partial, await unsized.run())
        if download.parts and self._answered_at is None:
            self._answered_at = began
        self._transfer.phase = Phase.KEEPING
        return self._opened(), download.parts

    def _order(self, partial: Partial) -> DownloadOrder:
        """Return what is to be downloaded now."""
        demand, claimed = self._transfer.demand, self._link
        left = partial.chunks.missing() if partial.chunks else None
        if partial.chunks is not None:
            demand.resolve(partial.chunks.size, partial.chunks.chunk_size)
        elif claimed is not None and claimed.size is not None:
            self._expect_size(claimed.size)
        return DownloadOrder(
            self._repository,
            self._digest,
            size=claimed.size if claimed else None,
            missing=left,
            linked=claimed is not None,
            settings=self._context.settings,
            limits=self._context.limits,
            one_by_one=self._blame.sources_to_try(),
            demand=demand,
        )

    def _rest_policy(self) -> RestPolicy:
        way = RestWay(self._context.settings.rest)
        return RestPolicy(
            way, self._transfer.demand, self._context.idle_seconds, window=self._transfer.window
        )

    def _begin_preparing(self, partial: Partial) -> asyncio.Task[None] | None:
        """Begin to make the file of the size that a manifest names; if that is wrong, it is made again."""
        claimed = self._link.size if self._link is not None else None
        if claimed is None or partial.chunks is not None:
            return None
        return self._context.tasks.spawn(self._prepare(partial, claimed), name=f"prepare {self._digest}")

    async def _prepare(self, partial: Partial, size: int) -> None:
        with suppress(StoreError):  # the fill meets it again, if the upstream has the blob
            await self._context.store.transfers.allocate(
                partial, size, self._chunk_size(), public=self._public
            )

    async def _open(self, partial: Partial, announced: int | None) -> None:
        """Open the growing file: the upstream has confirmed the blob, and from now on readers may follow."""
        size = await self._size(announced)
        await self._shares.check(self._repository, self._digest, size)
        claimed, demand = self._link.size if self._link else None, self._transfer.demand
        self._expect_size(size)
        writer = await self._context.store.transfers.open_growing_file(
            partial, size, self._chunk_size(), public=self._public
        )
        file, writer.file.demand = writer.file, demand
        # Where a manifest and the response disagree, nothing is sent before the digest has decided; nor where
        # the response may be compressed, unless both tell the same size.
        labelled_only = announced != claimed and not GZIP.isdisjoint(self._encodings())
        if self._context.settings.verify_first or claimed not in (None, size) or labelled_only:
            file.withheld = True
        demand.resolve(size, file.chunk_size)
        file.unread = demand.whole or not file.received()
        if announced is not None:  # a size that only a manifest names reserves nothing
            writer.ask_for_room_soon()
        self._begin_writing(writer)
        self._transfer.publish(file)

    def _chunk_size(self) -> int:
        chunk_size = self._context.settings.chunk_size
        return chunk_size if self._transfer.demand.whole else min(chunk_size, LAZY_CHUNK)

    def _expect_size(self, size: int) -> None:
        """Note the size: all of a small blob is fetched, whatever was asked for."""
        settings, demand = self._context.settings, self._transfer.demand
        if size <= settings.parallel_above or settings.verify_first:
            demand.set_whole()
        demand.resolve(size, self._chunk_size())

    async def _size(self, announced: int | None) -> int:
        """Return the size as announced by the response, or else by a HEAD, or else by a manifest.

        SizeUnknown if none tells. The last two are only claims: the digest decides.
        """
        claimed = self._link.size if self._link else None
        self._size_claimed = announced is None
        if announced is None:
            with suppress(UpstreamError):  # a HEAD may be refused where a GET is answered
                announced = await self._upstream.head_blob(self._repository.path, self._digest, claimed)
        size = claimed if announced is None else announced
        if size is None:
            message = f"{self._repository.upstream} gives no size for {self._digest}"
            raise SizeUnknown(Failure.INVALID, message)
        return size

    async def _confirm_complete(self, partial: Partial) -> int | None:
        """Return the size of what is here, once the upstream has confirmed the blob, or a link opens it."""
        began, size = self._context.clock(), partial.chunks.size if partial.chunks is not None else None
        try:
            await self._upstream.head_blob(self._repository.path, self._digest, size)
        except UpstreamError as error:
            if not (error.temporary or error.failure is Failure.OFFLINE) or not self._opens(partial):
                raise
            self._transfer.unanswered = str(error)
            return size
        self._answered_at = began
        return size

    def _opens(self, partial: Partial) -> bool:
        """Return whether the link opens what an earlier fill has left, perhaps one of another repository."""
        content = self._context.store.content
        return self._link is not None and content.opens(self._link, _origin(partial))

    def _begin_writing(self, writer: GrowingWriter) -> None:
        self._writer = writer
        self._begin_verifying(writer)
        self._context.tasks.spawn(self._make_room(writer), name=f"make room for {self._digest}")

    def _begin_verifying(self, writer: GrowingWriter) -> None:
        """Hash what comes; of a blob that is read by ranges once all of it is wanted, or is here."""
        work = writer.verifier.hash_contiguous()
        self._verifying = self._context.tasks.spawn(work, name=f"verify {self._digest}")

    async def _make_room(self, writer: GrowingWriter) -> None:
        """Evict for the next bytes, before they arrive, until the fill ends. Not for a prefetch."""
        while True:
            await writer.file.room_due.wait()
            if self._released:
                return
            if self._transfer.is_wanted_in_store:
                await self._shares.evict_excess(self._repository, self._digest, writer.file.size)
                await self._context.store.room.evict_excess(filling=self._digest)
            writer.file.room_due.clear()

    async def _verify(self, writer: GrowingWriter) -> VerifiedFile | None:
        """Return the finished file, all of it readable; None when its digest is wrong."""
        self._transfer.demand.set_whole()
        writer.verifier.wake()
        if self._verifying is not None:
            await self._verifying
        return writer.verifier.complete()

    async def _settle_wrong_bytes(
        self, partial: Partial, writer: GrowingWriter, parts: Parts, *, retried: bool
    ) -> None:
        """Find who sent wrong bytes; raise an error unless the blob can be asked for again without harm."""
        await self._decode(partial, writer.file)
        if self._size_claimed:
            message = f"{self._repository.upstream} sent other bytes for {self._digest} than its size says"
            raise WrongSize(Failure.INVALID, message)
        if parts:  # else all of it was here before
            await self._blame.blame(writer.verifier, parts)
        self._refuse_ranges()
        retry_elsewhere = bool(self._blame.sources_to_try())
        # As long as no client has received a byte, the blob can be requested again without harm.
        if not writer.file.unread or (retried and not retry_elsewhere):
            await self._discard(partial)
            raise self._blame.wrong_bytes(self._encodings(), retry_elsewhere=retry_elsewhere)
        log.warning("wrong bytes from upstream, asking again", **self._transfer.log_fields())
        self._context.metrics.fill_failures.labels("digest").inc()

    async def _decode(self, partial: Partial, file: GrowingFile) -> None:
        """Decode a blob that was compressed on the way, as long as no client has received a byte of it.

        Raises WrongSize if that gave the blob: the next fill finds all of it in the partial.
        """
        if file.unread and await decode(self._context, partial, self._encodings()):
            self._decoded = True
            raise WrongSize(Failure.INVALID, f"{self._digest} was compressed on the way")

    async def _adopt(self, partial: Partial, verified: VerifiedFile) -> None:
        asked_for = self._transfer.is_wanted_in_store
        if not asked_for and await self._context.store.room.excess() > 0:
            # No client has asked for it, and since it began others have taken the room.
            await self._discard(partial)
            return
        # Another fill's bytes, without an answer to this one: only their map tells how they came.
        link, origin = Link(size=verified.size), _origin(partial)
        if self._answered_at is not None:
            link = self._context.confirmed(self._upstream, self._repository, link, self._answered_at)
            origin = Origin.PUBLIC if self._public else Origin.PRIVATE
        await self._context.store.transfers.adopt(replace(verified, origin=origin), asked_for=asked_for)
        await self._context.store.metadata.links.add(self._repository, self._digest, link)
        await self._shares.evict_excess(self._repository, self._digest)
        await self._discard(partial)
        log.debug("fill stored", bytes=verified.size, **self._transfer.log_fields())

    async def _discard(self, partial: Partial) -> None:
        """Discard the partial; a disk error is ignored here, because the next fill will meet it."""
        with suppress(StoreError):
            await self._context.store.transfers.discard_partial(partial)

    async def _forget_size(self) -> None:
        """Forget a size that was wrong: the next fill goes by what the upstream sends."""
        if self._size_claimed:
            self._upstream.doubt_heads()
        if self._link is not None and self._link.size is not None:
            log.warning("blob is of another size than was said", **self._transfer.log_fields())
            self._link = replace(self._link, size=None)
            await self._context.store.metadata.links.add(self._repository, self._digest, self._link)

    def _refuse_ranges(self) -> None:
        """Ask for whole blobs where parts of wrong bytes came by ranges: perhaps only those were wrong."""
        for source in self._active_download.ranged if self._active_download is not None else ():
            source.ranges.refuse()

    def _encodings(self) -> set[str]:
        """Return the encodings with which responses were labelled."""
        return self._active_download.encodings if self._active_download is not None else set()

    def _opened(self) -> GrowingWriter:
        if self._writer is None:
            raise AssertionError("no growing file yet")
        return self._writer

    async def _release(self, partial: Partial) -> None:
        self._released = True
        await stop_task(self._verifying)
        if self._writer is not None:
            self._writer.file.room_due.set()  # which ends the task that makes room
            self._writer.file.close()
        await self._context.store.transfers.release_partial(partial)


async def _finished(task: asyncio.Task[None]) -> None:
    """Wait for the end of a task, whose files a thread may be using."""
    await asyncio.wait([task])


def _origin(partial: Partial) -> Origin:
    """Return how the bytes came that a partial has."""
    return Origin.UNKNOWN if partial.chunks is None else partial.chunks.origin
