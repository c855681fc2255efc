"""Words of upstreams as text, and the seal on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.media_type import is_media_type
from mirror.shared.upstream_word import MAX_BYTES, Seal, UpstreamWord

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    "word",
    [
        UpstreamWord(1700000000.25),
        UpstreamWord(1.0, DIGEST),
        UpstreamWord(1.0, Digest.of(b"x", "sha512"), 0, "application/vnd.oci.image.index.v1+json"),
        UpstreamWord(1.0, DIGEST, 7, None, '[{"a":"\u00e9\\n"}]'),
    ],
)
def test_word_comes_back_as_written(word: UpstreamWord) -> None:
    """Not found, a link, a tag, a list."""
    assert UpstreamWord.parse(word.to_bytes()) == word


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"2 1 - - -\n",
        b"1 1 - - -",
        b"1 -1 - - -\n",
        b"1 1 sha256:00 - -\n",
        b"1 1 - - text\n",
        b"1 1 - - a/b;c\n",
        b"1 1 - - -\n\xff",
        b"1 1 \xff - -\n",
    ],
)
def test_word_of_other_text_is_none(text: bytes) -> None:
    """Text of a later version, and of anybody else."""
    assert UpstreamWord.parse(text) is None


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=100).map(lambda each: b"1 1 - - " + each)))
def test_word_parser_takes_any_bytes(text: bytes) -> None:
    """Nothing raises, and a media type that comes out may be a header."""
    word = UpstreamWord.parse(text)
    assert word is None or word.media_type is None or is_media_type(word.media_type)


def test_seal_is_for_one_text_under_one_key() -> None:
    """Another key, another text, another secret, and no seal at all."""
    seal = Seal("a-secret-of-all-mirrors")
    sealed = seal.wrap("tag/a", b"text")
    assert sealed is not None
    assert seal.unwrap("tag/a", sealed) == b"text"
    assert seal.unwrap("tag/b", sealed) is None
    assert seal.unwrap("tag/a", sealed + b"!") is None
    assert seal.unwrap("tag/a", b"text") is None
    assert Seal("another-secret").unwrap("tag/a", sealed) is None


def test_seal_is_on_no_long_text() -> None:
    """Long text is neither written nor read."""
    seal = Seal("a-secret-of-all-mirrors")
    assert seal.wrap("a", b"x" * (MAX_BYTES + 1)) is None
    longest = seal.wrap("a", b"x" * MAX_BYTES)
    assert longest is not None
    assert seal.unwrap("a", longest) == b"x" * MAX_BYTES
    assert seal.unwrap("a", longest + b"x") is None
