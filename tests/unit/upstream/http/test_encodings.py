"""Bodies with a Content-Encoding that was not asked for."""

import gzip

import pytest

from mirror.upstream.http.encodings import Gunzip, as_sent_or_decoded, document

DATA = b'{"a": 1}' * 100
PACKED = gzip.compress(DATA, mtime=0)


def test_encodings_yield_the_bytes_as_sent_first() -> None:
    assert list(as_sent_or_decoded(PACKED, "gzip", 1000)) == [PACKED, DATA]
    assert list(as_sent_or_decoded(PACKED, "x-gzip", 1000)) == [PACKED, DATA]


@pytest.mark.parametrize(
    ("data", "encoding", "limit"),
    [
        (PACKED, "", 1000),
        (PACKED, "aws-chunked", 1000),
        (DATA, "gzip", 1000),
        (PACKED[:-9], "gzip", 1000),
        (b"\x1f\x8bnonsense", "gzip", 1000),
        (PACKED, "gzip", len(DATA) - 1),
    ],
)
def test_encodings_that_cannot_be_decoded(data: bytes, encoding: str, limit: int) -> None:
    """Nothing is inflated beyond the limit, whatever it was packed to."""
    assert list(as_sent_or_decoded(data, encoding, limit)) == [data]


def test_encodings_of_a_document() -> None:
    assert document(PACKED, "gzip", 1000) == document(DATA, "gzip", 1000) == DATA


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_gunzip_in_parts(step: int) -> None:
    """Members follow one another, in parts of any size; what is no member ends it."""
    packed, gunzip = PACKED + PACKED + b"surplus", Gunzip()
    parts = [packed[start : start + step] for start in range(0, len(packed), step)]
    assert b"".join(piece for part in parts for piece in gunzip.pieces(part)) == DATA + DATA
    assert (gunzip.complete, gunzip.ended) == (True, True)


def test_gunzip_of_noise_is_not_complete() -> None:
    gunzip = Gunzip()
    assert list(gunzip.pieces(b"noise")) == []
    assert (gunzip.complete, gunzip.ended) == (False, True)
