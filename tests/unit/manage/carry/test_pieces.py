"""Pieces of a blob, put together over several imports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.bundle.errors import BundleError, Damaged
from mirror.manage.carry.intake import Intake
from mirror.manage.carry.pieces import PieceOfBlob
from mirror.oci.digest import Digest
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.partial.partial import Partial
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import interrupt, open_folder

LARGE, STEP = random_bytes(900_000, 2), 200 * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    assert opened.blobs.check() == []
    assert list(opened.partials.iterdir()) == []
    opened.close()


def pieces(data: bytes, step: int = STEP) -> list[tuple[PieceOfBlob, bytes]]:
    digest, size = Digest.of(data), len(data)
    found = [(offset, data[offset : offset + step]) for offset in range(0, size, step)]
    return [(PieceOfBlob(digest, size, offset, len(part), step), part) for offset, part in found]


def take(folder: CacheDirectory, piece: PieceOfBlob, data: bytes) -> bool:
    """Deliver a piece as an import of its own; return whether it was wanted."""
    sink = Intake(folder).piece_sink(piece)
    if sink is None:
        return False
    sink.write(memoryview(data))
    sink.commit()
    return True


@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_pieces_make_the_blob_in_any_order(folder: CacheDirectory, order: int) -> None:
    """Each comes by an import of its own, and more than once; the last one makes the blob."""
    found = pieces(LARGE)[::order]
    for number, (piece, data) in enumerate(found, 1):
        assert take(folder, piece, data)
        assert not take(folder, piece, data)
        assert folder.reader.has(piece.digest) == (number == len(found))
    assert folder.reader.read(Digest.of(LARGE), 1_000_000) == LARGE
    assert folder.blobs.origin(Digest.of(LARGE)) is Origin.PRIVATE


def test_pieces_that_are_aborted_are_wanted_again(folder: CacheDirectory) -> None:
    """The bytes of a piece count for nothing before the piece is proven."""
    (first, data), *others = pieces(LARGE)
    for piece, part in others:
        assert take(folder, piece, part)
    sink = Intake(folder).piece_sink(first)
    assert sink is not None
    sink.write(memoryview(b"?" * first.length))
    sink.abort()
    assert take(folder, first, data)
    assert folder.reader.read(Digest.of(LARGE), 1_000_000) == LARGE


def test_pieces_are_put_together_after_a_kill(folder: CacheDirectory) -> None:
    """An import that is killed after the last piece leaves all pieces, and no blob: the next one has it."""
    found = pieces(LARGE)
    for piece, data in found[:-1]:
        take(folder, piece, data)
    partial = Partial.lock(Digest.of(LARGE), folder.partials)
    assert partial is not None
    assert partial.chunks is not None
    (last, data) = found[-1]
    partial.write(last.offset, [data], None)
    partial.chunks.record(last.offset, last.length)
    interrupt(partial)
    assert not take(folder, *found[0])
    assert folder.reader.read(Digest.of(LARGE), 1_000_000) == LARGE


def test_pieces_of_another_blob_are_thrown_away(folder: CacheDirectory) -> None:
    """The digest of the whole decides; afterwards the right pieces make the blob."""
    (first, data), *middle, (last, end) = pieces(LARGE)
    take(folder, first, b"?" + data[1:])
    for piece, part in middle:
        take(folder, piece, part)
    with pytest.raises(Damaged, match="pieces"):
        take(folder, last, end)
    for piece, part in pieces(LARGE):
        assert take(folder, piece, part)


def test_pieces_of_another_split_begin_again(folder: CacheDirectory) -> None:
    """A bundle that was split otherwise shares no piece with this one."""
    piece, data = pieces(LARGE)[1]
    take(folder, piece, data)
    for other, part in pieces(LARGE, 300 * 1024 + 512):
        assert take(folder, other, part)


@pytest.mark.parametrize(("offset", "length"), [(512, 1024), (0, 512), (1024, 0)])
def test_pieces_between_their_places_are_damage(offset: int, length: int) -> None:
    """Pieces begin and end at multiples of the step."""
    with pytest.raises(Damaged, match="lengths"):
        PieceOfBlob(Digest.of(LARGE), len(LARGE), offset, length, 1024).chunk_size()


def test_pieces_do_not_wait_for_a_fill(folder: CacheDirectory) -> None:
    """The operator repeats the import: the fill may end with the blob, or without it."""
    fill = Partial.lock(Digest.of(LARGE), folder.partials)
    assert fill is not None
    with pytest.raises(BundleError, match="repeat"):
        take(folder, *pieces(LARGE)[0])
    fill.release()


def test_pieces_have_chunks_of_bounded_size() -> None:
    """Readers of a partial are sent whole chunks: a large step is divided."""
    step = 4 * 1024**3 - 51_200
    size = PieceOfBlob(Digest.of(b""), 9 * 1024**3, step, step, step).chunk_size()
    assert (step % size, size <= 64 * 1024 * 1024) == (0, True)
