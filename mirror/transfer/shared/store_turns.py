"""Turns at the object store: what no client waits for is read while no client waits for anything else.

Blobs that are prefetched would have a share of the line that the object store's bytes come over. A client
whose own line is no faster never gets that time back. Nothing is lost by waiting: what is near is not
prefetched to hide a long way.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from mirror.oci.ranges import Span
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.transfer import FillWindow, Transfer

# Interval, in seconds, at which a blob that waits looks whether its turn has come.
LOOK_SECONDS = 0.1


class StoreTurns:
    """The running fills, of which some read from the object store, or may do so."""

    def __init__(self) -> None:
        self._reads_store: dict[Transfer, Callable[[], bool]] = {}

    def add(self, transfer: Transfer, reads_store: Callable[[], bool]) -> None:
        """Add a blob; `remove` it at its end. `reads_store`: whether it is read from there, or may be."""
        self._reads_store[transfer] = reads_store

    def remove(self, transfer: Transfer) -> None:
        """Remove a blob, if it is here."""
        self._reads_store.pop(transfer, None)

    def must_wait(self, transfer: Transfer) -> bool:
        """Return whether a blob is to wait: clients wait for bytes of others, and for this one none does."""
        own = self._reads_store.get(transfer)
        if transfer.urgent or own is None or not own():
            return False
        return any(
            each.urgent and not each.parked and reads_store()
            for each, reads_store in self._reads_store.items()
        )

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
