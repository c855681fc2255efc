"""The fill: the one download of a digest that is not in the store yet. Clients share a fill; none owns it.

1. Lock the partial. While another process holds the lock, readers follow that process's fill
   (`transfer.follow`).
2. Look in the store again, with the lock held.
3. Download the missing bytes (`transfer.download`). The first response confirms the link and has the size;
   from then on readers follow the growing file.
4. A transfer that breaks is resumed where it stopped, or from another source.
5. Verify size and digest, adopt the file into the store, add the link.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.errors import StoreError
from mirror.store.health import FaultKind, kind_of
from mirror.store.metadata.index import Link
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
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
from mirror.upstream.errors import Failure, SizeUnknown, UpstreamError, WrongSize
from mirror.upstream.http.encodings import GZIP
from mirror.upstream.upstream import Upstream
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion, stop_task

log = get_logger(__name__)

# Called when the content is readable: with the growing file, with all bytes, or with None for a stored blob.
Publish = Callable[[GrowingFile | bytes | None], None]


class Fill:
    """One fill; `run` is called once, and calls `publish` at most once."""

    def __init__(
        self,
        context: TransferContext,
        upstream: Upstream,
        repository: Repository,
        digest: Digest,
        *,
        urgent: bool = True,
        asked_for: bool = True,
    ) -> None:
        """`urgent`: a client waits; `asked_for`: one has waited, so there is to be room for the blob."""
        self._context = context
        self._upstream = upstream
        self._urgent = urgent
        self._asked_for = urgent or asked_for
        self.on_queue: Callable[[bool], object] = ignore  # called as that of Download
        self.demand = Demand(whole=True)
        self.unanswered: str | None = None
        self._downloading = False
        self._active_download: Download | None = None
        self._repository = repository
        self._digest = digest
        self._link: Link | None = None
        self._shares = context.store.shares
        self._blame = Blame(context, upstream, repository, digest)
        self._public = not upstream.uses_account(repository.path)
        self._answered_at: float | None = None  # when the upstream was first asked, if it has answered
        self._growing: GrowingFile | None = None
        self._size_claimed = False  # no response to a GET has told the size
        self._decoded = False
        self._making_room: asyncio.Task[None] | None = None
        self._verifying: asyncio.Task[None] | None = None

    async def run(self, publish: Publish) -> None:
        """Fill the blob. Raises UpstreamError or StoreError; the next fill resumes what was received."""
        follower = FillFollower(self._context, self._upstream, self._repository, self._digest, self.demand)

        def publish_followed(growing: GrowingFile) -> None:
            self.unanswered = follower.unanswered
            publish(growing)

        try:
            partial, local = await follower.lock(publish_followed)
            self._growing = follower.growing
            if partial is not None:
                self._link = local.link
                await self._run(partial, publish, present=local.present)
            elif self._growing is None:
                publish(None)
        except StoreError as error:
            self._context.store.report_write_failure(error)
            raise
        finally:
            if follower.growing is not None:
                follower.growing.close()
            follower.close()

    async def _run(self, partial: Partial, publish: Publish, *, present: bool) -> None:
        try:
            if present:
                publish(None)
                await self._context.store.discard_partial(partial)  # the files that locking has made
            else:
                with self._context.metrics.fills_running.track_inprogress():
                    log.debug("fill started", prefetch=not self._urgent, **self._log_fields())
                    await self._shares.check(
                        self._repository, self._digest, self._link.size if self._link else None
                    )
                    await self._fill(partial, publish)
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

    async def _fill(self, partial: Partial, publish: Publish) -> None:
        if self._growing is not None:
            self._start_verifying()
        parts = await self._download(partial, publish)
        while self._growing_file().missing():  # of a blob that is read by ranges, and none more was asked for
            if not self._urgent:
                self._growing_file().close()  # in the same turn of the loop: no reader can be added any more
                return
            parts = await self._download(partial, publish)
        verified, retried = await self._verify(), False
        while verified is None:
            await self._decode(partial)
            if self._size_claimed:
                message = (
                    f"{self._repository.upstream} sent other bytes for {self._digest} than its size says"
                )
                raise WrongSize(Failure.INVALID, message)
            if parts:  # else all of it was here before
                await self._blame.blame(self._growing_file(), parts)
            self._refuse_ranges()
            retry_elsewhere = bool(self._blame.sources_to_try())
            # As long as no client has received a byte, the blob can be requested again without harm.
            if not self._growing_file().unread or (retried and not retry_elsewhere):
                await self._discard(partial)
                raise self._blame.wrong_bytes(self._encodings(), retry_elsewhere=retry_elsewhere)
            log.warning("wrong bytes from upstream, asking again", **self._log_fields())
            self._context.metrics.fill_failures.labels("digest").inc()
            await self._growing_file().restart()
            self._start_verifying()
            parts = await self._download(partial, publish)
            verified, retried = await self._verify(), True
        await self._blame.judge_suspects(self._growing_file())
        # To completion, even when the mirror is stopping: half of it would leave orphaned files.
        await run_to_completion(self._keep(partial, verified))

    async def _decode(self, partial: Partial) -> None:
        """Decode a blob that was compressed on the way, as long as no client has received a byte of it.

        Raises WrongSize if that gave the blob: the next fill finds all of it in the partial.
        """
        if self._growing_file().unread and await decode(self._context, partial, self._encodings()):
            self._decoded = True
            raise WrongSize(Failure.INVALID, f"{self._digest} was compressed on the way")

    async def _keep(self, partial: Partial, verified: VerifiedFile) -> None:
        asked_for = self._is_wanted()
        if not asked_for and await self._context.store.excess() > 0:
            # No client has asked for it, and since it began others have taken the room.
            await self._discard(partial)
            return
        # Another fill's bytes, without an answer to this one: only their map tells how they came.
        link, origin = Link(size=verified.size), _origin(partial)
        if self._answered_at is not None:
            link = self._context.confirmed(self._upstream, self._repository, link, self._answered_at)
            origin = Origin.PUBLIC if self._public else Origin.PRIVATE
        await self._context.store.adopt(replace(verified, origin=origin), asked_for=asked_for)
        await self._context.store.links.add(self._repository, self._digest, link)
        await self._shares.evict_excess(self._repository, self._digest)
        await self._discard(partial)
        log.debug("fill stored", bytes=verified.size, **self._log_fields())

    async def _discard(self, partial: Partial) -> None:
        """Discard the partial; a disk error is ignored here, because the next fill will meet it."""
        with suppress(StoreError):
            await self._context.store.discard_partial(partial)

    async def _download(self, partial: Partial, publish: Publish) -> Parts:
        """Download until nothing is missing; return the parts that each source sent."""
        left, claimed = partial.chunks.missing() if partial.chunks else None, self._link
        if left is not None and partial.chunks is not None:
            self.demand.resolve(partial.chunks.size, partial.chunks.chunk_size)
        elif claimed is not None and claimed.size is not None:
            self._expect_size(claimed.size)
        if left is not None and self._growing is None and not self.demand.gaps(left):
            # Nothing is missing: an earlier fill was killed before its last step, or left what is asked for.
            await self._grow(partial, await self._confirm_complete(partial), publish)
        order = DownloadOrder(
            self._repository,
            self._digest,
            size=self._link.size if self._link else None,
            missing=left,
            linked=self._link is not None,
            settings=self._context.settings,
            limits=self._context.limits,
            one_by_one=self._blame.sources_to_try(),
            demand=self.demand,
        )
        self._active_download = download = Download(
            self._context.tasks, self._upstream, order, lambda size: self._grow(partial, size, publish)
        )
        download.rest = RestPolicy(
            RestWay(self._context.settings.rest), self.demand, self._context.idle_seconds
        )
        if not self._urgent:
            download.defer()
        download.on_queue = self.on_queue
        self._downloading, began = True, self._context.clock()
        try:
            await download.run(self._growing)
        except SizeUnknown:
            unsized = UnsizedDownload(self._context, self._upstream, self._repository, self._digest, partial)
            await self._grow(partial, await unsized.run(), publish)
        self._downloading = False
        if download.parts and self._answered_at is None:
            self._answered_at = began
        return download.parts

    def _expect_size(self, size: int) -> None:
        """Note the size: all of a small blob is fetched, whatever was asked for."""
        settings = self._context.settings
        if size <= settings.parallel_above or settings.verify_first:
            self.demand.set_whole()
        chunk_size = settings.chunk_size if self.demand.whole else min(settings.chunk_size, LAZY_CHUNK)
        self.demand.resolve(size, chunk_size)

    async def _confirm_complete(self, partial: Partial) -> int | None:
        """Return the size of what is here, once the upstream has confirmed the blob, or a link opens it."""
        began, size = self._context.clock(), partial.chunks.size if partial.chunks is not None else None
        try:
            await self._upstream.head_blob(self._repository.path, self._digest, size)
        except UpstreamError as error:
            if not (error.temporary or error.failure is Failure.OFFLINE) or not self._opens(partial):
                raise
            self.unanswered = str(error)
            return size
        self._answered_at = began
        return size

    def _opens(self, partial: Partial) -> bool:
        """Return whether the link opens what an earlier fill has left, perhaps one of another repository."""
        folder = self._context.store.folder
        return self._link is not None and folder.opens(self._link, _origin(partial))

    @property
    def brief(self) -> bool:
        return False

    @property
    def urgent(self) -> bool:
        """Return whether the fill must not give way: it needs no connection, or is followed elsewhere."""
        download = self._active_download
        return download is not None and (not self._downloading or download.urgent)

    @property
    def parked(self) -> bool:
        """Return whether nothing is to be fetched for now, though clients may be here."""
        download = self._active_download
        return self._downloading and download is not None and download.rest.parked

    def hurry(self) -> None:
        """Use all connections from now on: a client waits for a blob that was being prefetched."""
        self._urgent = self._asked_for = True
        if self._active_download is not None:
            self._active_download.hurry()
        if self._growing is not None:
            self._make_room()

    def _is_wanted(self) -> bool:
        """Return whether a client has asked for the blob, here or in another process."""
        return self._asked_for or (self._active_download is not None and self._active_download.urgent)

    def defer(self) -> None:
        """Go on behind the fills that clients wait for: the last client has left."""
        self._urgent = False
        if self._active_download is not None:
            self._active_download.defer()

    def _refuse_ranges(self) -> None:
        """Ask for whole blobs where parts of wrong bytes came by ranges: perhaps only those were wrong."""
        for source in self._active_download.ranged if self._active_download is not None else ():
            source.refuse_ranges()

    def _encodings(self) -> set[str]:
        """Return the encodings with which responses were labelled."""
        return self._active_download.encodings if self._active_download is not None else set()

    async def _grow(self, partial: Partial, announced: int | None, publish: Publish) -> GrowingFile:
        """Make the growing file: the upstream has confirmed the blob, and from now on readers may follow."""
        size = await self._size(announced)
        await self._shares.check(self._repository, self._digest, size)
        settings, claimed = self._context.settings, self._link.size if self._link else None
        # Where a manifest and the response disagree, nothing is sent before the digest has decided; nor where
        # the response may be compressed, unless both tell the same size.
        labelled_only = announced != claimed and not GZIP.isdisjoint(self._encodings())
        verify_first = settings.verify_first or claimed not in (None, size) or labelled_only
        self._expect_size(size)
        chunk_size = settings.chunk_size if self.demand.whole else min(settings.chunk_size, LAZY_CHUNK)
        self._growing = await self._context.store.open_growing_file(
            partial, size, chunk_size, verify_first=verify_first, public=self._public
        )
        self.demand.resolve(size, self._growing.chunk_size)
        self._growing.unread = self.demand.whole or not self._growing.received()
        self._start_verifying()
        publish(self._growing)
        if announced is not None:  # a size that only a manifest names reserves nothing
            self._make_room()
        return self._growing

    def _make_room(self) -> None:
        """Evict for the next bytes, in the background: they have not arrived yet. Not for a prefetch."""
        if self._is_wanted() and (self._making_room is None or self._making_room.done()):
            self._making_room = self._context.tasks.spawn(self._evict(), name=f"make room for {self._digest}")

    async def _evict(self) -> None:
        await self._shares.evict_excess(self._repository, self._digest, self._growing_file().size)
        await self._context.store.evict_excess(filling=self._digest)

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

    async def _forget_size(self) -> None:
        """Forget a size that was wrong: the next fill goes by what the upstream sends."""
        if self._size_claimed:
            self._upstream.doubt_heads()
        if self._link is not None and self._link.size is not None:
            log.warning("blob is of another size than was said", **self._log_fields())
            self._link = replace(self._link, size=None)
            await self._context.store.links.add(self._repository, self._digest, self._link)

    def _start_verifying(self) -> None:
        """Hash what comes; of a blob that is read by ranges once all of it is wanted, or is here."""
        self._growing_file().on_room_needed = self._make_room
        self.demand.on_whole = self._start_verifying
        if self.demand.whole:
            work = self._growing_file().hash_contiguous()
            self._verifying = self._context.tasks.spawn(work, name=f"verify {self._digest}")

    async def _verify(self) -> VerifiedFile | None:
        """Return the finished file, all of it readable; None when its digest is wrong."""
        self.demand.set_whole()
        if self._verifying is not None:
            await self._verifying
        return self._growing_file().complete()

    def _growing_file(self) -> GrowingFile:
        if self._growing is None:
            raise AssertionError("no growing file yet")
        return self._growing

    async def _release(self, partial: Partial) -> None:
        self.demand.on_whole = self.demand.on_change = ignore
        await stop_task(self._verifying)
        if self._growing is not None:
            self._growing.close()
        await self._context.store.release_partial(partial)

    def _log_fields(self) -> dict[str, object]:
        return {"repository": str(self._repository), "digest": str(self._digest)}


def _origin(partial: Partial) -> Origin:
    """Return how the bytes came that a partial has."""
    return Origin.UNKNOWN if partial.chunks is None else partial.chunks.origin
