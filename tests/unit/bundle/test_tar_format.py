"""Headers of tars."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from mirror.bundle.tar_format import BLOCK, END, header, header_size, padding

NAMES = st.text(st.sampled_from("abcxyz/.-é"), min_size=1, max_size=300).filter(
    lambda name: name.strip("/") == name
)


@given(path=NAMES, size=st.integers(0, 2**45))
def test_header_is_read_by_tarfile(path: str, size: int) -> None:
    """Path and size are read as they were, for long names and for sizes of terabytes too."""
    block = header(path, size)
    assert len(block) % BLOCK == 0
    assert len(block) == header_size(path, size)
    with tarfile.open(fileobj=io.BytesIO(block + END)) as tar:
        entry = tar.next()
    assert entry is not None
    assert (entry.name, entry.size, entry.mtime, entry.uid, entry.gid, entry.type) == (
        path,
        size,
        0,
        0,
        0,
        b"0",
    )


def test_header_of_a_blob_is_one_block() -> None:
    """No pax header where ustar has room; sha512 does not fit."""
    assert len(header(f"blobs/sha256/{'a' * 64}", 8**11 - 1)) == BLOCK
    assert len(header(f"blobs/sha256/{'a' * 64}", 8**11)) == 3 * BLOCK
    assert len(header(f"blobs/sha512/{'a' * 128}", 1)) == 3 * BLOCK


def test_padding_ends_at_a_block() -> None:
    """An empty file has none."""
    assert [padding(size) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]
