"""A download: all missing bytes of one blob, over as many connections as pay.

`transfer.plan` decides; `Download` starts segments, writes their bytes into the growing file, and handles
sources that fail. It ends when nothing is missing, or with the error of the last source that could help.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from mirror.oci.ranges import Span
from mirror.store.errors import StoreError
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.system.cpu_load import CpuLoad
from mirror.transfer import plan
from mirror.transfer.blob_source import BlobSource, BlobSources
from mirror.transfer.download_order import ENDLESS, DownloadOrder
from mirror.transfer.failure_count import ConsecutiveFailures
from mirror.transfer.plan import Concurrency, Segment
from mirror.transfer.source_selector import SourceSelector
from mirror.transfer.sources.receiving import Reception, check_end, check_size, fills_gap, open_parts
from mirror.transfer.sources.rest import RestPolicy
from mirror.transfer.transfer import Transfer
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.transport import PartReader
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.source import LONGEST_THROTTLE
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks
from mirror.util.tracebacks import without_frames

log = get_logger(__name__)

TICK = 0.05  # interval at which running segments are checked, in seconds
# Pauses between attempts that brought next to nothing, in seconds; the last one repeats.
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)

SourceSegment = Segment[BlobSource]


class Download:
    """One download, to be closed by `aclose`.

    Without a growing file, `announced_size` asks one source for the first bytes; `run` goes on from there.
    """

    def __init__(
        self, tasks: Tasks, sources: BlobSources, order: DownloadOrder, transfer: Transfer, rest: RestPolicy
    ) -> None:
        self._tasks = tasks
        self._order, self._limits = order, order.limits
        self._transfer = transfer
        self._rest = rest
        self._writer: GrowingWriter | None = None
        self._answered = False  # by a first source, whose segment waits for the file
        self._announced: int | None = None
        self._opened: asyncio.Future[GrowingWriter] = asyncio.get_running_loop().create_future()
        self._segments: dict[SourceSegment, asyncio.Task[UpstreamError | StoreError | None]] = {}
        transfer.progress.segments = self._segments
        self._concurrency: Concurrency | None = None
        self._cpu_load = CpuLoad(order.limits.busy_share)
        self._done = 0  # bytes of segments that have ended
        self._shortcuts: dict[BlobSource, DirectLocation] = {}
        self._selector = SourceSelector(sources, linked=order.linked, one_by_one=order.one_by_one)
        self._changed = transfer.demand.changed  # set for all that the loop has to look at
        self._attended = transfer.urgent = transfer.attended
        self._failures = ConsecutiveFailures(order.settings.attempts)
        self._not_before = 0.0
        self.ranged: set[BlobSource] = set()  # sources that have sent parts by ranges
        self.encodings: set[str] = set()  # with which responses were labelled
        self.parts: dict[BlobSource, list[Span]] = defaultdict(list)  # the spans that each source has sent

    async def aclose(self) -> None:
        """End all connections."""
        self._transfer.parked = False
        for task in (tasks := tuple(self._segments.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self) -> None:
        """Ask one source for the first byte; another source if the first one is late by its own measure."""
        now = time.monotonic()
        if not self._segments:
            source = self._selector.pick({})
            span = self._order.first_span(source, without_range=self._selector.ranges.plain(source))
            self._start(source, span, now)
            return
        segment = next(iter(self._segments))
        patience = segment.source.health.hedge_delay() * (1 + self._selector.back_offs(segment.source))
        late = segment.requested and not segment.answered and now - segment.began > patience
        if late and len(self._selector.candidates()) > 1:
            self._give_up(segment, "source does not answer, asking another")

    async def announced_size(self) -> int | None:
        """Return the size that the first answer announces, None if it announces none. UpstreamError."""
        while not self._answered:
            await self._wait()
            self._collect_ended()
            if not self._answered:
                self.begin()
        return self._announced

    async def refuse(self, error: UpstreamError | StoreError) -> None:
        """Take no byte of the first answer: `error` ends its segment, as one from the source would."""
        self._opened.set_exception(error)
        await asyncio.gather(*self._segments.values(), return_exceptions=True)
        self._opened.exception()  # which logs nothing, even if that segment had ended before

    async def run(self, writer: GrowingWriter) -> None:
        """Download until nothing is missing. Raises UpstreamError or StoreError; what came is kept."""
        self._writer = writer
        self._selector.blob_confirmed = True
        self._opened.set_result(writer)
        if not all(task.done() for task in self._segments.values()):
            self._changed.clear()
            await self._changed.wait()  # the first segment looks at its answer before others are planned
        while not self._rest.is_over(writer.file):
            self._assign(writer.file, time.monotonic())
            await self._wait()
            self._collect_ended()
        if self._concurrency is not None:
            for source in self.parts:  # the next blob starts with as many connections as paid for this one
                source.concurrency = self._concurrency.proven_level

    def _assign(self, growing: GrowingFile, now: float) -> None:
        """Start the segments that the plan wants."""
        self._note_clients()
        if now < self._not_before:
            return
        if not self._rest.demand.whole and not self._divisible(growing):
            self._rest.demand.set_whole()  # without ranges all of it comes anyway
        missing, wanted = self._rest.gaps(growing), growing.awaited_offsets()
        for segment in [each for each in self._segments if each.rest and not self._rest.fetches_rest]:
            self._segments[segment].cancel()
        self._transfer.parked = self._rest.parked
        if wanted and not self._transfer.urgent:  # by readers of other processes
            self._transfer.urgent = True
            for segment in self._segments:
                segment.source.slots.reassign()
        level = self._rest.level(missing, self._level(growing, now), self._order.settings.parallel)
        # Segments that readers wait for are watched; all segments at the end, when nothing is unassigned.
        watched = [each for each in self._segments if any(each.start <= at < each.stop for at in wanted)]
        while sum(each.source not in self._unproven_sources() for each in self._segments) < level:
            if not self._start_next(growing, (missing, wanted), level, now):
                watched = list(self._segments)
                break
        self._reassign(watched, now)
        # A reader that jumped ahead does not wait for a segment to end.
        if 0 < len(self._segments) < self._order.settings.parallel and self._divisible(growing):
            ahead = [offset for offset in wanted if plan.uncovered(offset, missing, self._segments)]
            if ahead:
                self._start_next(growing, (missing, ahead), level + 1, now)

    def _note_clients(self) -> None:
        """Look whether clients are here, and have room made for those that have come."""
        attended, self._attended = self._attended, self._transfer.attended
        self._rest.attended = self._attended
        if self._attended and not attended and self._writer is not None:
            self._writer.file.room_due.set()

    def _level(self, growing: GrowingFile, now: float) -> int:
        """Return the number of segments to have now."""
        if not self._transfer.urgent or not self._divisible(growing):
            return 1
        candidates = self._selector.candidates()
        if self._concurrency is None:
            learnt = max(source.concurrency for source in candidates)
            self._concurrency = self._limits.concurrency(self._order.settings.parallel, learnt)
        received = self._done + sum(segment.offset - segment.start for segment in self._segments)
        flowing = sum(segment.first_byte is not None for segment in self._segments)
        self._concurrency.observe(now, received, flowing, self._cpu_load.seconds())
        return 1 if all(source.throttled(now) for source in candidates) else self._concurrency.level

    def _unproven_sources(self) -> set[BlobSource]:
        """Return sources of unknown speed that have not answered; none if not urgent, or if all are such."""
        return self._selector.unproven(self._segments) if self._transfer.urgent else set()

    def _divisible(self, growing: GrowingFile) -> bool:
        """Return whether several connections may fetch the blob."""
        large = growing.size > self._order.settings.parallel_above
        return large and not all(map(self._selector.ranges.plain, self._selector.candidates()))

    def _start_next(
        self, growing: GrowingFile, gaps: tuple[Sequence[Span], Sequence[int]], level: int, now: float
    ) -> bool:
        """Start one segment; False when nothing is unassigned, or no source may be asked for more."""
        missing, wanted = gaps
        unproven = self._unproven_sources()
        source = self._selector.pick(Counter(segment.source for segment in self._segments), unproven)
        if source in unproven:  # all other sources are throttled
            return False
        plain = self._selector.ranges.plain(source)
        if self._segments and (plain or source.slots.saturated or source.throttled(now)):
            return False
        if not self._divisible(growing):
            length = growing.size
        else:
            left = sum(gap.length for gap in missing) - sum(segment.left for segment in self._segments)
            sharers = level
            if self._concurrency is not None and not source.throttled(now):
                # For the connections to come: a long span would be the last one to end.
                sharers = max(level, self._concurrency.likely(now))
            length = self._limits.span_length(max(left, 1), sharers, source.health.speed, growing.chunk_size)
        length = self._rest.length(length)
        span = plan.next_span(missing, self._segments, wanted, length, growing.chunk_size)
        if span is None:
            return False
        self._start(source, span, now)
        return True

    def _reassign(self, watched: Sequence[SourceSegment], now: float) -> None:
        """End the segments that are as good as dead; the rest of their bytes is then missing again."""
        candidates = self._selector.candidates()
        latency = max(source.health.latency for source in candidates)
        strain = self._limits.busy_patience if self._cpu_load.saturated() else 1.0
        requested = [segment for segment in self._segments if segment.requested]
        for segment in self._limits.stalled(
            requested, now, latency, strain * (1.0 + self._selector.back_offs() / 8)
        ):
            self._give_up(segment, "connection stalled, asking another")
        for segment in self._limits.low_speed(requested, now, 2.0 ** min(self._selector.back_offs(), 10)):
            self._give_up(segment, "connection below low-speed limit, asking another")
        best = max(candidates, key=lambda source: source.health.speed)
        speed = max([best.health.speed, *(segment.speed() for segment in self._segments)])
        patience = strain * (1.0 + self._selector.back_offs())
        if len(self._segments) == len(candidates) == 1:
            patience *= self._limits.alone_patience
        watched = [segment for segment in watched if segment.requested]
        if slow := self._limits.to_reassign(watched, now, speed, best.health.latency, patience):
            self._give_up(slow, "connection too slow, asking another")

    def _give_up(self, segment: SourceSegment, event: str) -> None:
        if not self._segments[segment].done():
            log.info(event, **self._order.log_fields(segment.source))
            self._selector.back_off(segment.source)
            self._segments[segment].cancel()

    def _is_urgent(self, segment: SourceSegment) -> bool:
        return self._transfer.urgent and not segment.rest

    def _give_way(self, segment: SourceSegment) -> None:
        """Leave the segment's connection to an urgent download; the rest is requested again behind those."""
        log.debug("connection left to an urgent download", **self._order.log_fields(segment.source))
        self._segments[segment].cancel()

    def _start(self, source: BlobSource, span: Span, now: float) -> None:
        segment = Segment(source, span.start, span.stop, now, rest=self._rest.fetches_rest)
        task = self._tasks.spawn(self._fetch(segment), name=f"receive {self._order.digest}")
        task.add_done_callback(lambda _: self._changed.set())
        self._segments[segment] = task

    async def _fetch(self, segment: SourceSegment) -> UpstreamError | StoreError | None:
        """Make one request and write its bytes into the growing file; return the error of source or disk."""
        order, source = self._order, segment.source
        size = self._writer.file.size if self._writer else order.size
        # A range names its end: some sources refuse one that does not.
        whole = segment.start == 0 and segment.stop in (size, ENDLESS)
        segment.ranged = not whole and not self._selector.ranges.plain(source)
        span = (segment.start, segment.stop) if segment.ranged else (0, None)
        shortcut = self._shortcuts.setdefault(source, DirectLocation())
        on_wait = self._transfer.clients.set_queued if self._writer is None else ignore
        urgent, give_way = partial(self._is_urgent, segment), partial(self._give_way, segment)
        async with source.slots.hold(urgent, give_way, on_wait):
            segment.requested, segment.began, segment.last_byte = True, (now := time.monotonic()), now
            try:
                async with source.open_blob(order.repository.path, order.digest, span, shortcut) as body:
                    segment.answered, segment.progress_time = True, time.monotonic()
                    # Before the growing file is made: until then no more is read than came with the head.
                    async with open_parts(body, self._tasks) as next_parts:
                        await self._accept(segment, body, next_parts)
            except (UpstreamError, StoreError) as error:
                return without_frames(error)  # the task keeps it
        return None

    async def _accept(self, segment: SourceSegment, body: BlobBody, next_parts: PartReader) -> None:
        """Receive the bytes of a response that the segment can use."""
        digest, ranges = self._order.digest, self._selector.ranges
        self.encodings.add(body.encoding)
        size = self._writer.file.size if self._writer else None
        if not segment.ranged and size is not None and body.total not in (None, size):
            ranges.accept_whole(segment.source, body, 0)
        elif size is None and (segment.ranged or len(self._selector.candidates()) > 1):
            size = self._order.size  # a plain answer, or another source, decides
        check_size(digest, body, size, ranged=segment.ranged or self._writer is None)
        writer = self._writer or await self._wait_opened(segment, body)
        if self._usable(segment, body, writer.file):
            await self._receive(segment, next_parts, writer)
            check_end(digest, body, segment)

    async def _wait_opened(self, segment: SourceSegment, body: BlobBody) -> GrowingWriter:
        """Announce the first answer, which confirms the blob, and wait until the fill has opened the file."""
        self._answered, self._announced = True, body.total
        self._changed.set()
        await asyncio.wait([self._opened])
        writer = self._opened.result()
        segment.stop = min(segment.stop, writer.file.size)
        self._changed.set()
        return writer

    def _usable(self, segment: SourceSegment, body: BlobBody, growing: GrowingFile) -> bool:
        """Return whether the body has the segment's bytes; remember whether the source supports ranges."""
        missing = growing.missing()
        if body.whole:
            return self._usable_whole(segment, body, growing, missing)
        return fills_gap(segment, missing, growing.chunk_size)

    def _usable_whole(
        self, segment: SourceSegment, body: BlobBody, growing: GrowingFile, missing: Sequence[Span]
    ) -> bool:
        """Return whether a body with the whole blob is used: the segment is then the whole blob, too."""
        source, ranges = segment.source, self._selector.ranges
        if segment.ranged:
            self.ranged.add(source)
        if segment.ranged and (segment.start or segment.stop < growing.size):
            source.ranges.refuse()
        elif not ranges.accept_whole(source, body, missing[0].start if missing else 0):
            return False
        others = segment.start and any(map(ranges.answered, self._selector.candidates()))
        if len(self._segments) > 1 or others:
            return False  # other segments fetch these bytes without reading through the beginning again
        segment.start = segment.offset = segment.progress_offset = 0
        segment.stop, segment.ranged = growing.size, False
        return bool(missing)

    async def _receive(self, segment: SourceSegment, next_parts: PartReader, writer: GrowingWriter) -> None:
        source, reception = segment.source, Reception(writer, self._limits)
        try:
            await reception.receive(segment, next_parts, partial(self._record_range, segment))
        finally:
            source.health.record_transfer(segment.offset - segment.start, segment.last_byte - segment.began)
            if reception.written:
                self.parts[source] += reception.written

    def _record_range(self, segment: SourceSegment) -> None:
        if segment.ranged:
            self.ranged.add(segment.source)
            self._selector.ranges.record_range(segment.source)

    async def _wait(self) -> None:
        """Wait until a segment ends, a reader jumps ahead, or TICK has passed."""
        due = time.monotonic() + TICK
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK):
                await self._changed.wait()
        self._changed.clear()
        late = time.monotonic() - due
        for segment in self._segments if late > 0 else ():
            segment.shift_clock(late)

    def _collect_ended(self) -> None:
        """Remove the segments that have ended, and handle their errors."""
        for segment, task in list(self._segments.items()):
            if not task.done():
                continue
            del self._segments[segment]
            self._done += self._transfer.progress.note_ended(segment)
            if task.cancelled():
                continue
            error = task.result()
            if isinstance(error, StoreError):
                raise error
            if error is not None:
                self._handle_failure(segment, error)
            elif segment.offset == segment.start and self._writer is not None:
                # The response was of no use: whatever the reason, pause before the next request.
                self._not_before = time.monotonic() + PAUSES[0]

    def _handle_failure(self, segment: SourceSegment, error: UpstreamError) -> None:
        """Continue from another source or after a pause; raise `error` when neither can help."""
        now = time.monotonic()
        unused = segment.ranged and segment.offset == segment.start
        ranges, span = self._selector.ranges, Span(segment.start, segment.stop)
        doubted = unused and ranges.record_failure(segment.source, span, error)
        if doubted and (self._writer is None or not error.temporary):
            return
        if not segment.ranged and error.temporary:
            ranges.record_plain_failure(segment.source)
        self._failures.record(segment.began, self._writer.file.received() if self._writer else 0, now)
        # Before the first byte the registry client has retried already: fail fast.
        if not error.temporary or self._writer is None:
            self._selector.exclude(segment.source, error)
            return
        if self._failures.too_many:
            raise error
        if unused and self._failures.next_is_last:
            ranges.record_failure(segment.source, span, error, last=True)
        if error.failure is Failure.TIMEOUT:
            self._selector.back_off(segment.source)
        log.info("transfer broke, resuming", reason=str(error), **self._order.log_fields(segment.source))
        pause = self._failures.pause(PAUSES)
        if all(source.throttled(now) for source in self._selector.candidates()):
            pause = max(pause, min(error.retry_after or 0.0, LONGEST_THROTTLE))
        self._not_before = now + pause
