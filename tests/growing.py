"""Growing files of content that is still to be written."""

from collections.abc import Awaitable, Callable

from mirror.store.partial.growing import HOLDBACK_BYTES
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.partial import Partial
from tests.fakes.content import sample

CHUNK = 64 * 1024
LARGE = sample(HOLDBACK_BYTES + 3 * CHUNK)

# Makes a growing file of content.
Grow = Callable[[bytes], Awaitable[tuple[GrowingWriter, Partial]]]


async def write(writer: GrowingWriter, content: bytes, start: int, stop: int) -> None:
    await writer.write(start, [content[start:stop]])
