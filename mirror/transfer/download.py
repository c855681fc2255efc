"""A download: everything that is missing of one blob, over as many connections as pay.

`cache.plan` decides; this starts lanes, feeds what they bring into the growing file, and deals with the
sources that fail. It ends when nothing is missing, or with the error of the last source that could help.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mirror.config.schema import FillSettings
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.partial.growing import GrowingFile
from mirror.transfer import plan
from mirror.transfer.body_buffer import arriving, clipped
from mirror.transfer.cpu_load import CpuLoad
from mirror.transfer.failure_count import ConsecutiveFailures
from mirror.transfer.plan import ConcurrencyLimit, Segment
from mirror.transfer.source_selector import SourceSelector
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.transport import PartReader
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.source import LONGEST_REST, Source
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

# How often the lanes are looked at while they bring bytes, in seconds.
TICK = 0.05

# Pauses between attempts that brought next to nothing, in seconds; the last one repeats.
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)

# Where a blob ends whose size is not known yet.
ENDLESS = 2**62

Grow = Callable[[int | None], Awaitable[GrowingFile]]


@dataclass(frozen=True, slots=True)
class DownloadOrder:
    """What to download, and how.

    `size` in bytes, where a manifest has told it; `missing`: the gaps an earlier fill left, None for all.
    `linked`: the repository is known to have it, so any source may be asked; else its own endpoint first.
    `alone`: of a blob that was wrong, whom to ask one after another, so that it is known who was.
    """

    repository: Repository
    digest: Digest
    size: int | None
    missing: Sequence[Span] | None
    linked: bool
    settings: FillSettings
    alone: Sequence[Source] = ()


class Download:
    """Run once. `grow` is called with the size that the first answer announces, and gives the file."""

    def __init__(self, tasks: Tasks, upstream: Upstream, order: DownloadOrder, grow: Grow) -> None:
        self._tasks = tasks
        self._order = order
        self._grow = grow
        self._growing: GrowingFile | None = None
        self._segments: dict[Segment[Source], asyncio.Task[UpstreamError | StoreError | None]] = {}
        self._concurrency: ConcurrencyLimit | None = None
        self._effort = CpuLoad()
        self._done = 0  # bytes of lanes that have ended
        self._shortcuts: dict[Source, DirectLocation] = {}
        self._choice = SourceSelector(upstream, linked=order.linked, alone=order.alone)
        self._changed = asyncio.Event()
        self._urgent = True
        self._whole = False  # ask for no range though the size is not known
        self._failures = ConsecutiveFailures(order.settings.attempts)
        self._not_before = 0.0
        self.parts: dict[Source, list[Span]] = defaultdict(list)  # who brought what

    async def run(self, growing: GrowingFile | None = None) -> GrowingFile:
        """Raises UpstreamError or StoreError, with what was received in the growing file."""
        self._growing = growing
        if growing is not None:
            self._choice.confirmed = True
            growing.on_wait_ahead = self._changed.set
        try:
            while self._growing is None or self._growing.missing():
                self._assign(self._growing, time.monotonic())
                await self._pause()
                self._reap()
        finally:
            await self._stop()
        self._learn()
        return self._growing

    def wait(self) -> None:
        """Nobody needs it yet: one connection, until `hurry`."""
        self._urgent = False

    def hurry(self) -> None:
        self._urgent = True
        self._changed.set()

    def _assign(self, growing: GrowingFile | None, now: float) -> None:
        """Start the lanes that the plan wants."""
        if now < self._not_before:
            return
        if growing is None:
            self._begin(now)
            return
        missing, wanted = growing.missing(), growing.awaited_offsets()
        self._urgent = self._urgent or bool(wanted)  # by readers of another process
        level = self._level(growing, now)
        # What readers wait for is watched, and towards the end, when all is on its way, everything.
        watched = [
            segment
            for segment in self._segments
            if any(segment.start <= each < segment.stop for each in wanted)
        ]
        while self._counted() < level:
            if not self._start_next(growing, (missing, wanted), level, now):
                watched = list(self._segments)
                break
        self._reassign(watched, now)
        # A reader that jumped ahead is not kept waiting for a lane to end.
        if 0 < len(self._segments) < self._order.settings.parallel and self._divisible(growing):
            ahead = [offset for offset in wanted if plan.uncovered(offset, missing, self._segments)]
            if ahead:
                self._start_next(growing, (missing, ahead), level + 1, now)

    def _begin(self, now: float) -> None:
        """Nothing has come yet: one source is asked; another one where that is late by its own measure."""
        if not self._segments:
            source = self._choice.pick({})
            self._start(source, self._first_span(source), now)
            return
        segment = next(iter(self._segments))
        patience = segment.source.health.hedge_delay() * (1 + self._choice.silences(segment.source))
        late = segment.asked and not segment.answered and now - segment.began > patience
        if late and len(self._choice.candidates()) > 1:
            self._give_up(segment, "source does not answer, asking another")

    def _level(self, growing: GrowingFile, now: float) -> int:
        """How many lanes to have now."""
        if not self._urgent or not self._divisible(growing):
            return 1
        candidates = self._choice.candidates()
        if self._concurrency is None:
            learnt = max(source.concurrency for source in candidates)
            self._concurrency = ConcurrencyLimit(self._order.settings.parallel, learnt)
        received = self._done + sum(segment.offset - segment.start for segment in self._segments)
        flowing = sum(segment.first is not None for segment in self._segments)
        self._concurrency.observe(now, received, flowing, self._effort.seconds())
        return 1 if all(source.throttled(now) for source in candidates) else self._concurrency.level

    def _counted(self) -> int:
        """How many of the lanes there are count as such."""
        beginning = self._beginning()
        return sum(segment.source not in beginning for segment in self._segments)

    def _beginning(self) -> set[Source]:
        """Sources that are new, and have not answered yet, if there are others: who is in a hurry does not
        wait for them.
        """
        if not self._urgent:
            return set()
        new = {segment.source for segment in self._segments if not segment.source.health.speed}
        new -= {segment.source for segment in self._segments if segment.answered}
        return new if set(self._choice.candidates()) - new else set()

    def _divisible(self, growing: GrowingFile) -> bool:
        large = growing.size > self._order.settings.parallel_above
        return large and any(source.supports_ranges for source in self._choice.candidates())

    def _start_next(
        self, growing: GrowingFile, gaps: tuple[Sequence[Span], Sequence[int]], level: int, now: float
    ) -> bool:
        """Start one lane; False when there is nothing to bring, or nowhere to bring it from."""
        missing, wanted = gaps
        beginning = self._beginning()
        source = self._choice.pick(Counter(segment.source for segment in self._segments), beginning)
        if source in beginning:  # the others rest
            return False
        if self._segments and (not source.supports_ranges or source.saturated or source.throttled(now)):
            return False
        if not self._divisible(growing):
            length = growing.size
        else:
            left = sum(gap.length for gap in missing) - sum(segment.left for segment in self._segments)
            sharers = level
            if self._concurrency is not None and not source.throttled(now):
                sharers = max(
                    level, self._concurrency.likely(now)
                )  # a long span would be the last one to end
            length = plan.span_length(max(left, 1), sharers, source.health.speed, growing.chunk_size)
        span = plan.next_span(missing, self._segments, wanted, length, growing.chunk_size)
        if span is None:
            return False
        self._start(source, span, now)
        return True

    def _reassign(self, segments: Sequence[Segment[Source]], now: float) -> None:
        """End the lanes that are as good as dead; what they had to bring is then missing again."""
        candidates = self._choice.candidates()
        latency = max(source.health.latency for source in candidates)
        strain = plan.STRAINED if self._effort.saturated() else 1.0
        everybody = [segment for segment in self._segments if segment.asked]
        for segment in plan.stalled(everybody, now, latency, strain * (1.0 + self._choice.silences() / 8)):
            self._give_up(segment, "connection stalled, asking another")
        for segment in plan.dripping(everybody, now, 2.0 ** min(self._choice.silences(), 10)):
            self._give_up(segment, "connection brings next to nothing, asking another")
        best = max(candidates, key=lambda source: source.health.speed)
        speed = max([best.health.speed, *(segment.speed() for segment in self._segments)])
        patience = strain * (1.0 + self._choice.silences())
        if len(self._segments) == len(candidates) == 1:
            patience *= plan.ALONE
        asked = [segment for segment in segments if segment.asked]
        hopeless = plan.to_reassign(asked, now, speed, best.health.latency, patience)
        if hopeless is not None:
            self._give_up(hopeless, "connection too slow, asking another")

    def _give_up(self, segment: Segment[Source], why: str) -> None:
        if not self._segments[segment].done():
            log.info(why, source=segment.source.name, **self._about())
            self._choice.back_off(segment.source)
            self._segments[segment].cancel()

    def _first_span(self, source: Source) -> Span:
        order = self._order
        if order.missing is None and order.size is None:
            # The answer to a range tells the size too, and others can bring the rest, if that is worth it.
            ranged = order.settings.parallel > 1 and source.supports_ranges and not self._whole
            return Span(0, max(plan.FIRST_SPAN, order.settings.parallel_above) if ranged else ENDLESS)
        gap = order.missing[0] if order.missing else Span(0, order.size or 0)
        left = sum(each.length for each in order.missing or [gap])
        if (
            order.settings.parallel == 1
            or left <= order.settings.parallel_above
            or not source.supports_ranges
        ):
            return gap
        length = plan.span_length(left, source.concurrency, source.health.speed, order.settings.chunk_size)
        return plan.bounded(gap.start, gap.stop, length, order.settings.chunk_size)

    def _start(self, source: Source, span: Span, now: float) -> None:
        segment = Segment(source, span.start, span.stop, now)
        task = self._tasks.spawn(self._fetch(segment), name=f"receive {self._order.digest}")
        task.add_done_callback(lambda _: self._changed.set())
        self._segments[segment] = task

    async def _fetch(self, segment: Segment[Source]) -> UpstreamError | StoreError | None:
        """One request; its bytes into the growing file. What source or disk did wrong is a value."""
        order = self._order
        size = self._growing.size if self._growing else order.size
        # To the end without a bound: of the whole it is then the plainest request there is.
        span = (segment.start, None if segment.stop in (size, ENDLESS) else segment.stop)
        shortcut = self._shortcuts.setdefault(segment.source, DirectLocation())
        async with segment.source.connection_slot():
            segment.asked, segment.began, segment.last = True, (now := time.monotonic()), now
            try:
                async with segment.source.open_blob(
                    order.repository.path, order.digest, span, shortcut
                ) as body:
                    segment.answered, segment.marked = True, time.monotonic()
                    # At once: while a file is made for it, no more is read than came with the head. A source
                    # that ignores Range sends everything from the beginning: what is here is read past.
                    async with arriving(body, segment.start - body.start, self._tasks) as next_parts:
                        await self._take(segment, body, next_parts, ranged=span != (0, None))
            except UpstreamError as error:
                if not self._refuses_range(error):
                    return error
            except StoreError as error:
                return error
        return None

    def _refuses_range(self, error: UpstreamError) -> bool:
        """Whether only the range was wrong: what is empty has none (416), and some answer nonsense (206)."""
        blind = self._growing is None and self._order.size is None and not self._whole
        self._whole = self._whole or (blind and error.status in (206, 416))
        return blind and self._whole

    async def _take(
        self, segment: Segment[Source], body: BlobBody, next_parts: PartReader, *, ranged: bool
    ) -> None:
        """What is of use of an answer."""
        growing = self._growing or await self._open(segment, body)
        if body.total not in (None, growing.size):
            message = f"{self._order.digest} is {growing.size} bytes, not {body.total}"
            raise UpstreamError(Failure.INVALID, message)
        if self._of_use(segment, body, growing, ranged=ranged):
            await self._receive(segment, next_parts, growing)

    async def _open(self, segment: Segment[Source], body: BlobBody) -> GrowingFile:
        """The source has confirmed the blob: from now on readers may follow."""
        growing = self._growing = await self._grow(body.total)
        self._choice.confirmed = True
        growing.on_wait_ahead = self._changed.set
        segment.stop = min(segment.stop, growing.size)
        self._changed.set()
        return growing

    def _of_use(
        self, segment: Segment[Source], body: BlobBody, growing: GrowingFile, *, ranged: bool
    ) -> bool:
        """Whether the body has what the lane is for; what it shows about the source is remembered."""
        if ranged:
            segment.source.supports_ranges = not body.whole
        if body.whole and ranged:
            if len(self._segments) > 1 or (
                segment.start and any(each.supports_ranges for each in self._choice.candidates())
            ):
                return False  # others bring it, without reading all that is here once more
            segment.stop = growing.size
        # If what an earlier fill left was of another size, the gaps are others now.
        for gap in growing.missing():
            if gap.start <= segment.start < gap.stop:
                return segment.start == gap.start or segment.start % growing.chunk_size == 0
        return False

    async def _receive(self, segment: Segment[Source], next_parts: PartReader, growing: GrowingFile) -> None:
        try:
            while segment.left and (parts := await next_parts()):
                length = sum(len(part) for part in parts)
                if segment.offset + length > growing.size:
                    raise UpstreamError(Failure.INVALID, f"{self._order.digest}: more bytes than announced")
                if length > segment.left:
                    parts, length = clipped(parts, segment.left), segment.left
                segment.writing = True
                await growing.write(segment.offset, parts)
                segment.writing = False
                segment.moved(time.monotonic(), length)
        finally:
            segment.source.health.record_transfer(
                segment.offset - segment.start, segment.last - segment.began
            )
            if segment.offset > segment.start:
                self.parts[segment.source].append(Span(segment.start, segment.offset))
        if segment.left:
            raise UpstreamError(Failure.UNREACHABLE, f"{self._order.digest}: ended at byte {segment.offset}")

    async def _pause(self) -> None:
        """Until a lane ends, a reader jumps ahead, or it is time to look again."""
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK):
                await self._changed.wait()
        self._changed.clear()
        late = time.monotonic() - began - TICK
        for segment in self._segments if late > 0 else ():
            segment.excuse(late)

    def _reap(self) -> None:
        for segment, task in list(self._segments.items()):
            if not task.done():
                continue
            del self._segments[segment]
            self._done += segment.offset - segment.start
            if task.cancelled():
                continue
            error = task.result()
            if isinstance(error, StoreError):
                raise error
            if error is not None:
                self._failed(segment, error)
            elif segment.offset == segment.start and self._growing is not None:
                # The answer was of no use: whatever the reason, the next request is not made at once.
                self._not_before = time.monotonic() + PAUSES[0]

    def _failed(self, segment: Segment[Source], error: UpstreamError) -> None:
        """Go on, from another source or after a pause; raises `error` when that is in vain."""
        now = time.monotonic()
        self._failures.happened(segment.began, self._growing.received() if self._growing else 0, now)
        # Before the first byte the registry client has retried already: fail fast.
        if not error.temporary or self._growing is None:
            self._choice.refused(segment.source, error)
            return
        if self._failures.too_many:
            raise error
        if error.failure is Failure.TIMEOUT:
            self._choice.back_off(segment.source)
        log.info("transfer broke, resuming", reason=str(error), source=segment.source.name, **self._about())
        pause = self._failures.pause(PAUSES)
        if all(source.throttled(now) for source in self._choice.candidates()):
            pause = max(pause, min(error.retry_after or 0.0, LONGEST_REST))
        self._not_before = now + pause

    def _learn(self) -> None:
        """The next blob begins with as many connections as paid for this one."""
        if self._concurrency is not None:
            for source in self.parts:
                source.concurrency = self._concurrency.settled

    async def _stop(self) -> None:
        for task in self._segments.values():
            task.cancel()
        if self._segments:
            await asyncio.wait(self._segments.values())

    def _about(self) -> dict[str, object]:
        return {"repository": str(self._order.repository), "digest": str(self._order.digest)}
