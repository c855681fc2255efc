"""The fill: the one download of a digest that is not here yet. It belongs to no client.

1. lock the partial; if another process fills it, wait until it is in the store
2. look in the store again, inside the lock
3. ask the upstream for what is missing; its first answer confirms the link and tells the size,
   and from then on readers follow the growing file
4. a transfer that breaks goes on from where it stopped
5. verify size and digest; adopt into the store; link
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mirror.cache.pieces import Pieces, skipping
from mirror.cache.plan import next_range
from mirror.config import Fill as FillSettings
from mirror.log import get_logger
from mirror.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.disk import Verified
from mirror.store.growing import GrowingFile, Partial
from mirror.store.index import Link
from mirror.store.store import Store
from mirror.tasks import Tasks
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.registry import Registry

log = get_logger(__name__)

# How often a fill that another process does is looked at, in seconds.
POLL_SECONDS = 0.1

# Pauses between attempts that brought nothing, in seconds; the last one repeats.
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)

Opened = Callable[[GrowingFile | None], None]


@dataclass(frozen=True, slots=True)
class Tools:
    """What every fill needs, made once by the composition root."""

    store: Store
    tasks: Tasks
    metrics: Metrics
    settings: FillSettings


class Fill:
    """Run once. `opened` is called when readers can follow: with the growing file, or None for the store."""

    def __init__(self, tools: Tools, registry: Registry, repository: Repository, digest: Digest) -> None:
        self._tools = tools
        self._registry = registry
        self._repository = repository
        self._digest = digest
        self._link: Link | None = None
        self._growing: GrowingFile | None = None
        self._verifying: asyncio.Task[None] | None = None

    async def run(self, opened: Opened) -> None:
        """Raises UpstreamError or StoreError, with what was received kept for the next fill."""
        partial = await self._lock()
        if partial is None:
            opened(None)
            return
        try:
            held = await self._tools.store.held(self._repository, self._digest)
            self._link = held.link
            if held.present:
                opened(None)
            else:
                with self._tools.metrics.fills_running.track_inprogress():
                    await self._fill(partial, opened)
        finally:
            await self._release(partial)

    async def _lock(self) -> Partial | None:
        """The locked partial; None when another process has put the blob into the store meanwhile."""
        while (partial := await self._tools.store.lock_partial(self._digest)) is None:
            held = await self._tools.store.held(self._repository, self._digest)
            if held.present:
                return None
            await asyncio.sleep(POLL_SECONDS)
        return partial

    async def _fill(self, partial: Partial, opened: Opened) -> None:
        await self._download(partial, opened)
        verified = await self._verify()
        if verified is None and self._restartable():
            # Nobody has had a byte of it, so it can be asked once more without anybody noticing.
            log.warning("wrong bytes from upstream, asking once more", **self._about())
            self._tools.metrics.fill_failures.labels("digest").inc()
            await self._growing_file().restart()
            self._start_verifying()
            await self._download(partial, opened)
            verified = await self._verify()
        if verified is None:
            await self._tools.store.discard(partial)
            raise UpstreamError(
                Failure.INVALID, f"{self._repository.upstream} sent bytes that are not {self._digest}"
            )
        await self._tools.store.adopt(verified)
        await self._tools.store.add_link(self._repository, self._digest, Link(size=verified.size))
        await self._tools.store.discard(partial)

    async def _download(self, partial: Partial, opened: Opened) -> None:
        """Until nothing is missing. Each attempt that brings bytes makes the next one free."""
        fruitless = 0
        while (span := self._next(partial)) is not None:
            before = self._received()
            try:
                await self._stream(partial, span, opened)
            except UpstreamError as error:
                fruitless = 0 if self._received() > before else fruitless + 1
                # Before the first byte the registry client has retried already: fail fast.
                if not error.temporary or self._growing is None or fruitless > self._tools.settings.attempts:
                    raise
                log.info("transfer broke, resuming", reason=str(error), **self._about())
                if fruitless:
                    await asyncio.sleep(PAUSES[min(fruitless, len(PAUSES)) - 1])
        if self._growing is None:  # all was here, left by a fill that was killed before its last step
            size = await self._registry.head_blob(self._repository.path, self._digest)
            await self._grow(partial, size, opened)

    def _next(self, partial: Partial) -> Span | None:
        """What to ask for; Span(0, 0) stands for the whole while its size is not known."""
        if partial.chunks is None:
            return Span(0, 0)
        return next_range(partial.chunks.missing(), ())

    async def _stream(self, partial: Partial, span: Span, opened: Opened) -> None:
        """One request; its bytes into the growing file. Raises UpstreamError where it breaks."""
        whole = partial.chunks is None or span.stop == partial.chunks.size
        stop = None if whole else span.stop
        async with self._registry.open_blob(self._repository.path, self._digest, span.start, stop) as body:
            growing = self._growing or await self._grow(partial, body.total, opened)
            if body.total not in (None, growing.size):
                raise UpstreamError(
                    Failure.INVALID, f"{self._digest} is {growing.size} bytes, not {body.total}"
                )
            if span.start and self._next(partial) != span:
                return  # what an earlier fill left was of another size: begin anew
            await self._write(growing, body, Span(span.start, stop or growing.size))

    async def _write(self, growing: GrowingFile, body: BlobBody, span: Span) -> None:
        # A source that ignores Range sends everything from the beginning: read past what is here.
        pieces = Pieces(skipping(body.chunks(), span.start - body.start))
        collecting = self._tools.tasks.spawn(pieces.collect(), name=f"receive {self._digest}")
        try:
            async with growing.writer(span.start) as writer:
                while piece := await pieces.next():
                    if writer.offset + len(piece) > span.stop:
                        raise UpstreamError(Failure.INVALID, f"{self._digest}: more bytes than announced")
                    await writer.write(piece)
        finally:
            await _stop(collecting)
        if writer.offset < span.stop:
            raise UpstreamError(Failure.UNREACHABLE, f"{self._digest}: ended at byte {writer.offset}")

    async def _grow(self, partial: Partial, announced: int | None, opened: Opened) -> GrowingFile:
        """The upstream has confirmed the blob: from now on readers may follow."""
        size = await self._size(announced)
        self._growing = await self._tools.store.grow(partial, size, self._tools.settings.chunk_size)
        self._start_verifying()
        opened(self._growing)
        return self._growing

    async def _size(self, announced: int | None) -> int:
        """The blob's size: as announced, as a manifest has it, or as a HEAD tells; they must not disagree."""
        known = self._link.size if self._link else None
        size = known if announced is None else announced
        if size is None:
            size = await self._registry.head_blob(self._repository.path, self._digest)
        upstream = self._repository.upstream
        if size is None:
            raise UpstreamError(Failure.INVALID, f"{upstream} does not tell the size of {self._digest}")
        if known not in (None, size):
            raise UpstreamError(
                Failure.INVALID, f"{upstream} announces {size} bytes, not {known}: {self._digest}"
            )
        return size

    def _start_verifying(self) -> None:
        self._verifying = self._tools.tasks.spawn(
            self._growing_file().verify_on(), name=f"verify {self._digest}"
        )

    async def _verify(self) -> Verified | None:
        """The finished file, released to its readers; None when it is not what its name says."""
        if self._verifying is not None:
            await self._verifying
        return self._growing_file().settle()

    def _restartable(self) -> bool:
        return self._growing_file().readable == 0

    def _growing_file(self) -> GrowingFile:
        if self._growing is None:
            raise AssertionError("no growing file yet")
        return self._growing

    def _received(self) -> int:
        return self._growing.received() if self._growing else 0

    async def _release(self, partial: Partial) -> None:
        await _stop(self._verifying)
        if self._growing is not None:
            self._growing.close()
        await self._tools.store.release(partial)

    def _about(self) -> dict[str, object]:
        return {"repository": str(self._repository), "digest": str(self._digest)}


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task])
