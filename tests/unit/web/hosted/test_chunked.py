"""Chunked bodies: what the grammar has, in any pieces, and nothing else."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.web.hosted.chunked import LINE_BYTES, TRAILER_BYTES, ChunkedDecoder, WrongChunk


def decoded(*pieces: bytes) -> tuple[bytes, bytes, bool]:
    """Content, what comes behind the body, and whether the body has ended."""
    decoder, content, behind = ChunkedDecoder(), b"", b""
    for piece in pieces:
        if decoder.ended:
            behind += piece
        else:
            found, behind = decoder.feed(piece)
            content += b"".join(found)
    return content, behind, decoder.ended


def encoded(chunks: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    parts = [b"%x%s\r\n%s\r\n" % (len(each), extension, each) for each in chunks if each]
    return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"


@given(
    st.lists(st.binary(max_size=50), max_size=5),
    st.sampled_from([b"", b";a=b", b' ; x="y"']),
    st.sampled_from([b"", b"X-Sum: 1\r\n", b"A:\r\nB: c\r\n"]),
    st.binary(max_size=20),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_chunked_body_is_decoded_in_any_pieces(
    chunks: list[bytes], extension: bytes, trailer: bytes, behind: bytes, cuts: list[int]
) -> None:
    data = encoded(chunks, extension, trailer) + behind
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:stop] for start, stop in itertools.pairwise(edges)]
    assert decoded(*pieces) == (b"".join(chunks), behind, True)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b"1\na\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1;\x00\r\na\r\n",
        b"0000000000000001\r\na\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\nno header\r\n\r\n",
        b"0\r\n: x\r\n\r\n",
        b"0\r\nA b: x\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\n\n",
        b"1;" + b"x" * LINE_BYTES,
        b"0\r\n" + b"A: b\r\n" * TRAILER_BYTES,
    ],
)
def test_chunked_body_outside_the_grammar_is_refused(data: bytes) -> None:
    with pytest.raises(WrongChunk):
        decoded(data)
    with pytest.raises(WrongChunk):
        decoded(*(data[at : at + 1] for at in range(len(data))))


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_chunked_decoder_takes_any_bytes(pieces: list[bytes]) -> None:
    """Nothing but WrongChunk is raised, and no more content comes out than bytes went in."""
    try:
        content, behind, _ = decoded(*pieces)
    except WrongChunk:
        return
    assert len(content) + len(behind) <= sum(map(len, pieces))
