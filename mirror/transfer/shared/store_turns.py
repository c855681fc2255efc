"""Turns at the object store: what no client waits for is read while no client waits for anything else.

Blobs that are prefetched would have a share of the line that the object store's bytes come over. A client
whose own line is no faster never gets that time back. Nothing is lost by waiting: what is near is not
prefetched to hide a long way.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from mirror.oci.ranges import Span
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.transfer import FillWindow, Transfer

# Interval, in seconds, at which a blob that waits looks whether its turn has come.
LOOK_SECONDS = 0.1


class StoreTurns:
    """The blobs that are read from the object store, or may be."""

    def __init__(self) -> None:
        self._transfers: dict[Transfer, None] = {}

    def add(self, transfer: Transfer) -> None:
        """Add a blob; `remove` it when it is read from elsewhere, and at its end."""
        self._transfers[transfer] = None

    def remove(self, transfer: Transfer) -> None:
        """Remove a blob, if it is here."""
        self._transfers.pop(transfer, None)

    def must_wait(self, transfer: Transfer) -> bool:
        """Return whether a blob is to wait: clients wait for bytes of others, and for this one none does."""
        return not transfer.urgent and any(each.urgent and not each.parked for each in self._transfers)

    async def wait(self, transfer: Transfer) -> None:
        """Wait for the turn of a blob."""
        while self.must_wait(transfer):
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await transfer.demand.changed.wait()
            if self.must_wait(transfer):
                transfer.demand.changed.clear()


class TurnWindow(Struct):
    """A window that is closed while the blob is to wait; else it is that of `window`."""

    turns: StoreTurns
    transfer: Transfer
    window: FillWindow | None

    def cut(self, growing: GrowingFile, gaps: Sequence[Span]) -> Sequence[Span]:
        """Return the parts of the gaps that may be fetched now."""
        if self.turns.must_wait(self.transfer):
            return ()
        return gaps if self.window is None else self.window.cut(growing, gaps)
