"""The verifier of a growing file: only the right bytes are released."""

import asyncio
import os

from mirror.store.partial.demand import Demand
from tests.growing import CHUNK, LARGE, Grow, write


async def test_growing_releases_verified_content(open_growing: Grow) -> None:
    """Content is hashed as it comes, and then readable to its end."""
    writer, partial = await open_growing(LARGE)
    verifying = asyncio.ensure_future(writer.verifier.hash_contiguous())
    await write(writer, LARGE, 0, len(LARGE))
    await verifying
    verified = writer.verifier.complete()
    assert verified is not None
    assert (verified.size, verified.path) == (len(LARGE), partial.data_path)
    assert await writer.file.wait_readable(len(LARGE) - 1) == len(LARGE)
    reader = writer.file.open_reader()
    assert reader is not None
    with reader:
        assert os.pread(reader.fileno(), len(LARGE), 0) == LARGE


async def test_growing_never_releases_wrong_content(open_growing: Grow) -> None:
    """One wrong byte is enough; an incomplete blob is not verified either."""
    writer, _ = await open_growing(LARGE)
    assert writer.verifier.complete() is None
    verifying = asyncio.ensure_future(writer.verifier.hash_contiguous())
    await write(writer, LARGE[:-1] + bytes([LARGE[-1] ^ 1]), 0, len(LARGE))
    await verifying
    assert writer.verifier.complete() is None
    assert writer.file.readable() < len(LARGE)


async def test_growing_verifier_waits_until_all_is_wanted(open_growing: Grow) -> None:
    """A blob that is read by ranges costs no hashing, however many of its bytes are here."""
    writer, _ = await open_growing(LARGE)
    writer.file.demand = Demand()
    await write(writer, LARGE, CHUNK, len(LARGE))
    verifying = asyncio.ensure_future(writer.verifier.hash_contiguous())
    await write(writer, LARGE, 0, CHUNK)
    assert writer.verifier.complete() is None
    assert not verifying.done()
    writer.file.demand.set_whole()
    writer.verifier.wake()
    await verifying
    assert writer.verifier.complete() is not None
