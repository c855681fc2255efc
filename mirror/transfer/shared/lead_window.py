"""The window of a fill that other mirrors follow: how far it runs ahead of them.

Bytes that the upstream has sent to one mirror alone are sent again when that mirror dies. So the fill asks
for no byte that is further than the window ahead of the mirror that has followed furthest: neither when its
connections bring the parts of the blob out of order, nor when its own line is slower than the upstream's.
Nothing is lost by that while the line is what limits all of them. Where it would hold back clients here,
because all that follow are slower than they are, the fill goes on at FLOOR.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mirror.oci.ranges import Span
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.plan import Concurrency, PlanLimits
from mirror.transfer.shared.line_concurrency import LineConcurrency
from mirror.util.callbacks import ignore

# Least window, in bytes, of which several connections have a part each; for a large blob, one byte in this
# many of it.
LEAST_WINDOW = 8 * 1024 * 1024
WINDOW_PART = 32

# Bytes a second with which a fill goes on beyond its window, if most of the clients here wait for it.
FLOOR = 16 * 1024 * 1024

# Time, in seconds, after which mirrors that take nothing of what is here hold nothing back.
STALL_SECONDS = 2.0

# Time, in seconds, that a mirror takes at most to ask for its next span.
BETWEEN_SECONDS = 2.0

# Bytes by which the window moves before the fill is woken.
WAKE_BYTES = 1024 * 1024


# Bytes of a span from the object store while the speed of a connection is not known.
FIRST_SPAN = 1024 * 1024


class LeadLimits(PlanLimits, frozen=True, kw_only=True):
    """Limits of the planner beside other mirrors.

    While `leads` is true, spans are no longer than a window. While the object store is read, `store_span` is
    the time of a span in seconds, else 0. Its line is `line`: a reader has the first span as late as all of
    them that come at once, and a client whose line is no faster never gets back the time that it has waited.
    """

    leads: Callable[[], object] = ignore
    store_span: Callable[[], float] = float
    line: LineConcurrency | None = None

    def wished_length(self, speed: float) -> float:
        if not (seconds := self.store_span()):
            return super().wished_length(speed)
        return speed * seconds if speed else FIRST_SPAN

    def concurrency(self, most: int, level: int) -> Concurrency:
        if self.line is not None and self.store_span():
            return self.line.of_download(most)
        return super().concurrency(most, level)

    def span_length(self, left: int, level: int, speed: float, chunk_size: int) -> int:
        length = super().span_length(left, level, speed, chunk_size)
        return min(length, max(LEAST_WINDOW, chunk_size)) if self.leads() else length


class LeadWindow:
    """The window of one fill. `clients`: how many of this mirror have not read all of the blob."""

    def __init__(
        self,
        wake: Callable[[], object],
        clients: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wake`: has the fill look again."""
        self.best = 0  # the end of what the mirror has that follows furthest
        self._wake = wake
        self._clients = clients
        self._clock = clock
        self._following = 0
        self._left = -BETWEEN_SECONDS  # when the last one has ended
        self._moved = self._looked = clock()
        self._floor = 0.0
        self._woken = 0

    @contextmanager
    def following(self, start: int) -> Iterator[None]:
        """Count a mirror that follows from `start` on, and has what is before."""
        self._following += 1
        self.advance(start)
        try:
            yield
        finally:
            self._following -= 1
            self._left = self._clock()

    def advance(self, offset: int) -> None:
        """Note that a mirror has been sent the blob up to `offset`."""
        if offset <= self.best:
            return
        self.best, self._moved = offset, self._clock()
        if offset - self._woken >= WAKE_BYTES:
            self._woken = offset
            self._wake()

    def cut(self, growing: GrowingFile, gaps: Sequence[Span]) -> Sequence[Span]:
        """Return the parts of the gaps that lie within the window."""
        now = self._clock()
        elapsed, self._looked = min(now - self._looked, 1.0), now
        if not gaps or not self._holds(growing, now):
            return gaps
        ceiling = self.best + max(LEAST_WINDOW, growing.size // WINDOW_PART, 2 * growing.chunk_size)
        waiting = len(growing.awaited_offsets())
        if not waiting or 2 * waiting < self._clients():
            self._floor = ceiling
        elif gaps[0].start >= self._floor:
            self._floor = max(self._floor, ceiling) + FLOOR * elapsed
        ceiling = max(ceiling, int(self._floor))
        ceiling += -ceiling % growing.chunk_size  # the next span begins a chunk
        return [Span(each.start, min(each.stop, ceiling)) for each in gaps if each.start < ceiling]

    def _holds(self, growing: GrowingFile, now: float) -> bool:
        """Return whether mirrors follow, and take what is here, and clients read from the start on."""
        if growing.withheld or (not self._following and now - self._left > BETWEEN_SECONDS):
            return False
        contiguous = growing.chunks.contiguous()
        if any(offset > contiguous for offset in growing.awaited_offsets()):
            return False
        return self.best >= contiguous or now - self._moved <= STALL_SECONDS
