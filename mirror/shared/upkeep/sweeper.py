"""Sweeping of uploads that have not ended: only old ones, and never one whose fill runs.

A mirror holds the lease of a blob while it fetches it and writes it to the bucket. So an upload of a blob
that somebody has the lease of may still be fed, however old it is.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from mirror.shared.interfaces import Leases
from mirror.shared.keys import fill_key
from mirror.shared.upkeep.open_uploads import OpenUpload
from mirror.util.log import get_logger

log = get_logger(__name__)

# Age, in seconds, from which an upload may be swept: longer than any takes that only sends.
OLD_SECONDS = 24 * 3600.0

# The most uploads of one sweep: the next one goes on.
MOST_SWEPT = 1000


class UploadList(Protocol):
    """The uploads of a bucket that have not ended. All methods raise TierError."""

    @property
    def possible(self) -> bool: ...

    def list(self) -> AsyncIterator[OpenUpload]: ...

    async def abort(self, upload: OpenUpload) -> None: ...


class UploadSweeper:
    """The sweeping of one bucket. Raises TierError."""

    def __init__(self, uploads: UploadList, leases: Leases) -> None:
        self._uploads = uploads
        self._leases = leases

    async def sweep(self) -> int:
        """Abort the old uploads that no mirror feeds; return their number."""
        if not self._uploads.possible:
            return 0
        old = []
        async for each in self._uploads.list():
            if each.age > OLD_SECONDS:
                old.append(each)
            if len(old) >= MOST_SWEPT:
                break
        swept = 0
        for each in old:
            if await self._leases.holder(fill_key(each.digest)) is None:
                await self._uploads.abort(each)
                swept += 1
        if swept:
            log.info("uploads that had not ended removed from the shared tier", uploads=swept)
        return swept
