"""The bytes of a running fill, for an upload beside it.

The upload is no reader of the file: it must not make the fill fetch what no client reads, nor hinder a fill
with wrong bytes from beginning again. So it looks how far the file has come, in place of waiting for it.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator

from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.transfer import Transfer

# Interval, in seconds, at which an upload reads what has come.
POLL_SECONDS = 0.05

# Time without a new byte, in seconds, after which an upload is given up: a fill may be parked for hours.
STALL_SECONDS = 15.0

PIECE = 1024 * 1024


class UploadAbandoned(Exception):
    """The fill has failed, has begun again, or stands still: its blob is written behind, if it comes."""


async def follow_fill(
    transfer: Transfer, growing: GrowingFile, executor: DiskExecutor
) -> AsyncIterator[bytes]:
    """Yield the blob in pieces as they come. Raises UploadAbandoned."""
    chunks, offset, since = growing.chunks, 0, time.monotonic()
    file = growing.open_reader()
    if file is None:
        raise UploadAbandoned("the fill is over")
    with file:
        while offset < growing.size:
            if growing.chunks is not chunks or growing.is_corrupt():
                raise UploadAbandoned("the bytes are wrong")
            readable = growing.size if growing.verified else growing.chunks.contiguous()
            if readable - offset < min(PIECE, growing.size - offset):
                if transfer.done or time.monotonic() - since > STALL_SECONDS:
                    raise UploadAbandoned("the fill stands still")
                await asyncio.sleep(POLL_SECONDS)
                continue
            length = min(PIECE, growing.size - offset)
            data = await executor.run(os.pread, file.fileno(), length, offset)
            if not data:
                raise UploadAbandoned("the file is shorter than it was")
            yield data
            offset, since = offset + len(data), time.monotonic()
