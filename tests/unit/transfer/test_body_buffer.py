"""Pieces: what arrives during a write is the next piece, and nothing waits or is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mirror.transfer import body_buffer
from mirror.transfer.body_buffer import BodyBuffer, clipped, skipping
from mirror.upstream.errors import Failure, UpstreamError
from mirror.util.tasks import Tasks


async def chunks(*given: bytes | UpstreamError) -> AsyncIterator[bytes]:
    for each in given:
        if isinstance(each, UpstreamError):
            raise each
        yield each


def collecting(tasks: Tasks, *given: bytes | UpstreamError) -> tuple[BodyBuffer, "asyncio.Task[None]"]:
    collected = BodyBuffer(chunks(*given))
    return collected, tasks.spawn(collected.collect(), name="collect")


async def test_what_came_meanwhile_is_one_piece(tasks: Tasks) -> None:
    """Chunks that are there together are written together, and then the end is an empty piece."""
    collected, task = collecting(tasks, b"ab", b"c", b"d", b"e")
    assert await collected.next() == [b"ab"]
    assert await collected.next() == [b"c", b"d", b"e"]
    await task
    assert await collected.next() == []


async def test_the_first_piece_is_small(tasks: Tasks) -> None:
    """Nothing more is collected until it is written: whoever asks for the second has written the first."""
    collected, task = collecting(tasks, b"ab", b"c")
    assert await collected.next() == [b"ab"]
    await asyncio.sleep(0)
    assert not task.done()
    assert await collected.next() == [b"c"]
    await task


async def test_an_error_comes_after_what_came_before_it(tasks: Tasks) -> None:
    """Bytes that arrived before a transfer broke are kept: they need not be asked again."""
    collected, _ = collecting(tasks, b"ab", UpstreamError(Failure.UNREACHABLE, "broke"))
    assert await collected.next() == [b"ab"]
    with pytest.raises(UpstreamError, match="broke"):
        await collected.next()


async def test_the_network_does_not_run_away_from_the_disk(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AHEAD bytes waiting no more is read until they are taken."""
    monkeypatch.setattr(body_buffer, "AHEAD", 4)
    collected, _ = collecting(tasks, b"abcd", b"efgh", b"i")
    found = []
    while piece := await collected.next():
        found.append(piece)
    assert found == [[b"abcd"], [b"efgh"], [b"i"]]


@pytest.mark.parametrize("count", range(8))
async def test_skipping_drops_the_first_bytes(count: int) -> None:
    """Whatever the sizes of the chunks, exactly so many bytes are left out."""
    left = [each async for each in skipping(chunks(b"ab", b"cde", b"fg"), count)]
    assert b"".join(left) == b"abcdefg"[count:]


@pytest.mark.parametrize("length", range(9))
def test_clipping_keeps_the_first_bytes(length: int) -> None:
    """Whatever the sizes of the parts, exactly so many bytes are kept."""
    assert b"".join(clipped([b"ab", b"cde", b"fg"], length)) == b"abcdefg"[:length]
