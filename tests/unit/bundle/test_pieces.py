"""Blobs that were split, put together again."""

import random
from pathlib import Path

import pytest

from mirror.bundle.errors import Damaged
from mirror.bundle.pieces import Pieces
from mirror.bundle.plan import Slice
from mirror.oci.digest import Digest
from tests.fakes.bundles import random_bytes

DATA = random_bytes(100_000, 1)
DIGEST = Digest.of(DATA)
SLICES = [Slice(DIGEST, 100_000, at, min(30_000, 100_000 - at)) for at in range(0, 100_000, 30_000)]


def put(pieces: Pieces, piece: Slice, data: bytes = DATA) -> None:
    sink = pieces.sink(piece)
    sink.write(memoryview(data[piece.offset : piece.offset + piece.length]))
    sink.commit()


@pytest.mark.parametrize("seed", range(5))
def test_pieces_in_any_order_make_the_blob(tmp_path: Path, seed: int) -> None:
    """The file is there when the last piece is, and not before; a new process goes on with the folder."""
    order = list(SLICES)
    random.Random(seed).shuffle(order)
    for piece in order:
        pieces = Pieces(tmp_path)
        assert pieces.complete(DIGEST, 100_000) is None
        assert not pieces.has(piece)
        put(pieces, piece)
        assert pieces.has(piece)
    path = pieces.complete(DIGEST, 100_000)
    assert path is not None
    assert path.read_bytes() == DATA
    assert pieces.digests() == [DIGEST]
    pieces.remove(DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_pieces_of_two_distributions_fit_together(tmp_path: Path) -> None:
    """Parts of another size may overlap."""
    pieces = Pieces(tmp_path)
    put(pieces, SLICES[0])
    put(pieces, Slice(DIGEST, 100_000, 20_000, 20_000))
    assert pieces.lacking(DIGEST, 100_000) == 60_000
    put(pieces, Slice(DIGEST, 100_000, 40_000, 60_000))
    assert pieces.lacking(DIGEST, 100_000) == 0
    assert pieces.complete(DIGEST, 100_000) is not None


def test_piece_that_is_aborted_is_lacking(tmp_path: Path) -> None:
    """Bytes without a mark do not count; a piece that is written again loses its mark first."""
    pieces = Pieces(tmp_path)
    put(pieces, SLICES[1])
    sink = pieces.sink(SLICES[1])
    sink.write(memoryview(b"half"))
    sink.abort()
    assert pieces.lacking(DIGEST, 100_000) == 100_000


def test_pieces_of_another_blob_are_removed(tmp_path: Path) -> None:
    """The blob's own digest decides."""
    pieces = Pieces(tmp_path)
    for piece in SLICES:
        put(pieces, piece, random_bytes(100_000, 2))
    with pytest.raises(Damaged, match=str(DIGEST)):
        pieces.complete(DIGEST, 100_000)
    assert list(tmp_path.iterdir()) == []


def test_piece_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Another user's link in the folder leads nowhere."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    folder = tmp_path / "pieces"
    folder.mkdir()
    (folder / f"sha256-{DIGEST.encoded}.pieces").symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        Pieces(folder).sink(SLICES[0])
    assert target.read_bytes() == b"precious"
