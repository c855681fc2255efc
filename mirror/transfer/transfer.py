"""The transfer: the state of one blob on its way into the store, which all who work on it share.

No part calls another one back. Each changes the state, and who waits for the change looks at the state again:

| changed by | what | awaited or read by |
| --- | --- | --- |
| clients (`transfer.flight`) | `demand`, `attended`, `urgent` | the download, through `demand.changed` |
| the fill, the follower | `publish`: the content that clients read | clients, in `wait_content` |
| the fill | `phase`, `unanswered` | the table of flights, clients |
| the download | `set_queued`, `parked`, `urgent`, `segments` | clients' time limits, the table of flights |
| the table of flights | `finish`: the end, with an error or without | clients, readers of the file |
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from enum import Enum
from typing import Protocol

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Link
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.blob_source import BlobSource
from mirror.transfer.plan import Segment
from mirror.upstream.errors import UpstreamError, WrongBytes
from mirror.util.time_limit import TimeLimit
from mirror.util.tracebacks import without_frames


class Phase(Enum):
    """Progress of a fill."""

    WAITING = "waiting"  # for its turn
    LEASING = "leasing"  # for the lock; clients may follow the fill of another process
    DOWNLOADING = "downloading"
    KEEPING = "keeping"  # verifies and stores: no connection is needed any more


class FillWindow(Protocol):
    """A bound for how far a fill runs ahead."""

    def cut(self, growing: GrowingFile, gaps: Sequence[Span]) -> Sequence[Span]:
        """Return the parts of the gaps that may be fetched now."""
        ...


class Transfer:
    """One blob on its way. `link` is what was known of it at the beginning."""

    def __init__(self, digest: Digest, repository: Repository, link: Link | None = None) -> None:
        self.digest = digest
        self.repository = (
            repository  # its upstream is asked; other repositories join with a link of their own
        )
        self.link = link
        self.demand = Demand(whole=True)
        self.phase = Phase.WAITING
        self.attended = False  # a client is here
        self.urgent = False  # a client waits, here or in another process
        self.asked_for = False  # a client has waited, or is to find it: there is to be room for the blob
        self.parked = False  # nothing is to be fetched for now, though clients may be here
        self.window: FillWindow | None = None  # of a fill that other mirrors may follow
        self.brief = False  # one small request: its end would cost a connection and save little
        self.unanswered: str | None = None  # why the upstream gave no answer, if an old link opened the blob
        self.has_bytes = False  # there was content: bytes have come
        self.gives_way = False  # is being stopped, to be resumed at its next turn
        self.error: UpstreamError | StoreError | None = None
        self._limits: list[TimeLimit] = []  # of the clients that wait, or have not read all of it
        self.segments: Collection[Segment[BlobSource]] = ()  # that its download fetches now
        self._ended: Counter[str] = Counter()  # bytes of segments that have ended, by source
        self._queued = False
        self._content: GrowingFile | bytes | None = None
        self._readable = asyncio.Event()
        self._done = asyncio.Event()

    @property
    def wanted(self) -> bool:
        """Return whether a client waits for the blob, or has not read all of it."""
        return bool(self._limits)

    @property
    def wanted_by(self) -> int:
        """Number of clients that wait for the blob, or have not read all of it."""
        return len(self._limits)

    @property
    def must_go_on(self) -> bool:
        """Return whether the fill must not give way, although no client here waits for it."""
        return self.phase is Phase.KEEPING or (self.phase is Phase.DOWNLOADING and self.urgent)

    @property
    def is_wanted_in_store(self) -> bool:
        """Return whether a client has asked for the blob, here or in another process."""
        return self.asked_for or self.urgent

    @property
    def received(self) -> int:
        """Return how many bytes of a large blob are here; 0 before the first one, and for a small blob."""
        return self._content.received() if isinstance(self._content, GrowingFile) else 0

    @property
    def size(self) -> int | None:
        """Size of a large blob, in bytes; None before the upstream has told it, and for a small blob."""
        return self._content.size if isinstance(self._content, GrowingFile) else None

    @property
    def connections(self) -> Counter[str]:
        """The number of connections that fetch the blob now, by source."""
        return Counter(each.source.name for each in self.segments) if not self.done else Counter()

    @property
    def received_from(self) -> Counter[str]:
        """The bytes that have come from each source."""
        found = Counter(self._ended)
        for each in self.segments if not self.done else ():
            found[each.source.name] += each.offset - each.start
        return found

    def note_ended(self, segment: Segment[BlobSource]) -> int:
        """Count the bytes of a segment that has ended, for its source; return their number."""
        length = segment.offset - segment.start
        self._ended[segment.source.name] += length
        return length

    @property
    def queued(self) -> bool:
        """Return whether the fill waits in the mirror's own queue."""
        return self._queued

    @property
    def done(self) -> bool:
        """Return whether the fill has ended."""
        return self._done.is_set()

    def begin(self) -> None:
        """Begin a turn of the fill."""
        self.phase, self.unanswered = Phase.LEASING, None
        self.attended = self.urgent = self.wanted

    def hurry(self) -> None:
        """Use all connections from now on: a client waits for the blob."""
        self.attended = self.urgent = self.asked_for = True
        self.demand.changed.set()

    def defer(self) -> None:
        """Go on over one connection, behind the fills that clients wait for: the last client has left."""
        self.attended = self.urgent = False

    def set_queued(self, queued: bool) -> None:
        """Stop the clients' time limits while the fill waits in the mirror's own queue."""
        if queued is not self._queued and not self._readable.is_set():
            self._queued = queued
            for limit in self._limits:
                limit.suspend() if queued else limit.resume()

    async def wait_content(self) -> GrowingFile | bytes | None:
        """Wait for a file to follow, or for the whole blob; None when the blob is in the store.

        Raises the error of a fill that failed before there was content.
        """
        await self._readable.wait()
        if self._content is None and self.error is not None:
            raise self.error
        return self._content

    async def wait_done(self) -> None:
        """Wait until the fill has ended, successfully or not."""
        await self._done.wait()

    def publish(self, content: GrowingFile | bytes | None) -> None:
        """Give `content` to all that wait; None when the blob is in the store."""
        if not self.done and not self.gives_way:
            self.set_queued(False)
            self._content, self.has_bytes = content, True
            self._readable.set()

    def withdraw(self) -> None:
        """Take the content back, which no client reads: the fill gives way to others."""
        self.gives_way = True
        self._content = None
        self._readable.clear()

    def finish(self, error: UpstreamError | StoreError | None) -> None:
        """End the transfer; readers of its growing file receive `error`."""
        self.error = None if error is None else without_frames(error)
        if error is not None and isinstance(self._content, GrowingFile):
            self._content.fail(error, corrupt=isinstance(error, WrongBytes))
        self.set_queued(False)
        self._readable.set()
        self._done.set()

    def finish_without_content(self) -> None:
        """End the transfer while no client waits: later requests look in the store again."""
        self._content = None
        self.finish(None)

    def log_fields(self) -> dict[str, object]:
        """Return the fields of a log line about the transfer."""
        return {"repository": str(self.repository), "digest": str(self.digest)}
