"""Pieces: what arrives during a write is the next piece, and nothing waits or is lost."""

from collections.abc import AsyncIterator

import pytest

from mirror.cache import pieces
from mirror.cache.pieces import Pieces, clipped, skipping
from mirror.tasks import Tasks
from mirror.upstream.errors import Failure, UpstreamError


async def chunks(*given: bytes | UpstreamError) -> AsyncIterator[bytes]:
    for each in given:
        if isinstance(each, UpstreamError):
            raise each
        yield each


async def test_what_came_meanwhile_is_one_piece() -> None:
    """Chunks that are there together are written together, and then the end is an empty piece."""
    collected = Pieces(chunks(b"ab", b"c", b"d"))
    await collected.collect()
    assert await collected.next() == [b"ab", b"c", b"d"]
    assert await collected.next() == []


async def test_an_error_comes_after_what_came_before_it() -> None:
    """Bytes that arrived before a transfer broke are kept: they need not be asked again."""
    collected = Pieces(chunks(b"ab", UpstreamError(Failure.UNREACHABLE, "broke")))
    await collected.collect()
    assert await collected.next() == [b"ab"]
    with pytest.raises(UpstreamError, match="broke"):
        await collected.next()


async def test_the_network_does_not_run_away_from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """With AHEAD bytes waiting no more is read until they are taken."""
    monkeypatch.setattr(pieces, "AHEAD", 4)
    tasks = Tasks()
    collected = Pieces(chunks(b"abcd", b"efgh", b"i"))
    tasks.spawn(collected.collect(), name="collect")
    found = []
    while piece := await collected.next():
        found.append(piece)
    assert b"".join(part for piece in found for part in piece) == b"abcdefghi"
    assert found[0] == [b"abcd"]
    await tasks.close()


@pytest.mark.parametrize("count", range(8))
async def test_skipping_drops_the_first_bytes(count: int) -> None:
    """Whatever the sizes of the chunks, exactly so many bytes are left out."""
    left = [each async for each in skipping(chunks(b"ab", b"cde", b"fg"), count)]
    assert b"".join(left) == b"abcdefg"[count:]


@pytest.mark.parametrize("length", range(9))
def test_clipping_keeps_the_first_bytes(length: int) -> None:
    """Whatever the sizes of the parts, exactly so many bytes are kept."""
    assert b"".join(clipped([b"ab", b"cde", b"fg"], length)) == b"abcdefg"[:length]
