"""The transfer: the state of one blob on its way into the store, which all who work on it share.

No part calls another one back. Each changes the state, and who waits for the change looks at the state again:

| changed by | what | awaited or read by |
| --- | --- | --- |
| clients (`transfer.flight`) | `demand`, `attended`, `urgent` | the download, through `demand.changed` |
| the fill, the follower | `publish`: the content that clients read | clients, in `wait_content` |
| the fill | `phase`, `unanswered` | the table of flights, clients |
| the download | `clients.queued`, `parked`, `urgent` | clients' time limits, the table of flights |
| the download | `progress` | the pages, pulls of whole images |
| the table of flights | `finish`: the end, with an error or without | clients, readers of the file |
"""

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Link
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.state.clients import WaitingClients
from mirror.transfer.state.progress import TransferProgress
from mirror.upstream.errors import UpstreamError, WrongBytes
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
        self.clients = WaitingClients()
        self.progress = TransferProgress()
        self._content: GrowingFile | bytes | None = None
        self._readable = asyncio.Event()
        self._done = asyncio.Event()

    @property
    def is_wanted_in_store(self) -> bool:
        """Return whether a client has asked for the blob, here or in another process."""
        return self.asked_for or self.urgent

    @property
    def done(self) -> bool:
        """Return whether the fill has ended."""
        return self._done.is_set()

    def begin(self) -> None:
        """Begin a turn of the fill."""
        self.phase, self.unanswered = Phase.LEASING, None
        self.attended = self.urgent = bool(self.clients)

    def hurry(self) -> None:
        """Use all connections from now on: a client waits for the blob."""
        self.attended = self.urgent = self.asked_for = True
        self.demand.changed.set()

    def defer(self) -> None:
        """Go on over one connection, behind the fills that clients wait for: the last client has left."""
        self.attended = self.urgent = False

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
            self._set_content(content)
            self.has_bytes = True
            self._release_clients()

    def withdraw(self) -> None:
        """Take the content back, which no client reads: the fill gives way to others."""
        self.gives_way = True
        self._set_content(None)
        self.clients.served = False
        self._readable.clear()

    def finish(self, error: UpstreamError | StoreError | None) -> None:
        """End the transfer; readers of its growing file receive `error`."""
        self.error = None if error is None else without_frames(error)
        if error is not None and isinstance(self._content, GrowingFile):
            self._content.fail(error, corrupt=isinstance(error, WrongBytes))
        self._release_clients()
        self.progress.ended = True
        self._done.set()

    def _set_content(self, content: GrowingFile | bytes | None) -> None:
        self._content = content
        self.progress.file = content if isinstance(content, GrowingFile) else None

    def _release_clients(self) -> None:
        """Let the clients' time limits run, and the clients look at what there is."""
        self.clients.set_queued(False)
        self.clients.served = True
        self._readable.set()

    def log_fields(self) -> dict[str, object]:
        """Return the fields of a log line about the transfer."""
        return {"repository": str(self.repository), "digest": str(self.digest)}
