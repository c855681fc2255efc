"""Blobs that this process fills, as other mirrors of the shared tier may follow them."""

from collections.abc import Iterator
from contextlib import contextmanager

from mirror.oci.digest import Digest
from mirror.store.errors import StoreError
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.shared.lead_window import LeadWindow
from mirror.transfer.transfer import Transfer
from mirror.upstream.errors import UpstreamError


class LeadingFills:
    """The running fills of this process."""

    def __init__(self) -> None:
        self._running: dict[Digest, Transfer] = {}
        self._windows: dict[Digest, LeadWindow] = {}

    @contextmanager
    def leading(self, transfer: Transfer) -> Iterator[None]:
        """Let others follow a fill in the block; what they have open then stays open."""
        self._running[transfer.digest] = transfer
        self._windows[transfer.digest] = transfer.window = LeadWindow(
            transfer.demand.changed.set, lambda: len(transfer.clients)
        )
        try:
            yield
        finally:
            if self._running.get(transfer.digest) is transfer:
                del self._running[transfer.digest], self._windows[transfer.digest]

    def window(self, digest: Digest) -> LeadWindow | None:
        """Return the window of a running fill; None for a blob that is not filled now."""
        return self._windows.get(digest)

    async def wait_content(self, digest: Digest, ranges: str) -> GrowingFile | None:
        """Wait until the upstream has answered; return the file to follow, None for none.

        `ranges`: the Range header of the mirror that follows, which is fetched as for a client.
        """
        transfer = self._running.get(digest)
        if transfer is None:
            return None
        try:
            content = await transfer.wait_content()
        except (UpstreamError, StoreError):
            return None
        if not isinstance(content, GrowingFile):
            return None
        transfer.demand.add(ranges)
        return content
