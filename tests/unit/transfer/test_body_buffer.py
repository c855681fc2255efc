"""The body buffer: bytes that arrive during a write are the next write, and nothing waits or is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mirror.oci.ranges import Span
from mirror.transfer import body_buffer
from mirror.transfer.body_buffer import BodyBuffer, clipped, section, skipping
from mirror.upstream.errors import Failure, UpstreamError
from mirror.util.tasks import Tasks


async def chunks(*items: bytes | UpstreamError) -> AsyncIterator[bytes]:
    for each in items:
        if isinstance(each, UpstreamError):
            raise each
        yield each


def collecting(tasks: Tasks, *items: bytes | UpstreamError) -> tuple[BodyBuffer, "asyncio.Task[None]"]:
    buffer = BodyBuffer(chunks(*items))
    return buffer, tasks.spawn(buffer.collect(), name="collect")


async def test_body_buffer_collects_during_a_write(tasks: Tasks) -> None:
    """Chunks that are there together are written together, and then the end is an empty list."""
    buffer, task = collecting(tasks, b"ab", b"c", b"d", b"e")
    assert await buffer.next() == [b"ab"]
    assert await buffer.next() == [b"c", b"d", b"e"]
    await task
    assert await buffer.next() == []


async def test_body_buffer_first_write_is_small(tasks: Tasks) -> None:
    """Nothing more is collected until the first part is written: `next` is called again only then."""
    buffer, task = collecting(tasks, b"ab", b"c")
    assert await buffer.next() == [b"ab"]
    await asyncio.sleep(0)
    assert not task.done()
    assert await buffer.next() == [b"c"]
    await task


async def test_body_buffer_raises_after_the_received_parts(tasks: Tasks) -> None:
    """Bytes that arrived before a transfer broke are kept, and need not be requested again."""
    buffer, _ = collecting(tasks, b"ab", UpstreamError(Failure.UNREACHABLE, "broke"))
    assert await buffer.next() == [b"ab"]
    with pytest.raises(UpstreamError, match="broke"):
        await buffer.next()


async def test_body_buffer_is_bounded(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading stops while AHEAD bytes wait to be taken."""
    monkeypatch.setattr(body_buffer, "AHEAD", 4)
    buffer, _ = collecting(tasks, b"abcd", b"efgh", b"i")
    found = []
    while piece := await buffer.next():
        found.append(piece)
    assert found == [[b"abcd"], [b"efgh"], [b"i"]]


@pytest.mark.parametrize("count", range(8))
async def test_skipping_drops_the_first_bytes(count: int) -> None:
    """Exactly `count` bytes are left out, whatever the sizes of the chunks."""
    left = [each async for each in skipping(chunks(b"ab", b"cde", b"fg"), count)]
    assert b"".join(left) == b"abcdefg"[count:]


@pytest.mark.parametrize("length", range(9))
def test_clipping_keeps_the_first_bytes(length: int) -> None:
    """Exactly `length` bytes are kept, whatever the sizes of the parts."""
    assert b"".join(clipped([b"ab", b"cde", b"fg"], length)) == b"abcdefg"[:length]


def test_section_of_parts() -> None:
    parts = [b"abc", b"defg", b"h"]
    assert section(parts, 10, Span(11, 15)) == [b"bc", b"de"]
    assert section(parts, 10, Span(17, 20)) == [b"h"]
