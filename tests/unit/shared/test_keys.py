"""Keys of the shared tier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.shared.keys import fill_key, object_key, parse_blob_key


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_key_of_a_blob_and_back(algorithm: str) -> None:
    """A blob's key is its digest below two digits of it."""
    digest = Digest.of(b"x", algorithm)
    key = object_key(digest)
    assert key == f"blobs/{algorithm}/{digest.encoded[:2]}/{digest.encoded}"
    assert parse_blob_key(key) == digest
    assert str(digest).replace(":", "/") in fill_key(digest)


@given(st.one_of(st.text(), st.text("0123456789abcdef/", max_size=70).map("blobs/sha256/".__add__)))
def test_key_of_something_else_is_none(key: str) -> None:
    """A bucket may have objects of others: no key makes a digest that has another key."""
    digest = parse_blob_key(key)
    assert digest is None or object_key(digest) == key


def test_key_of_a_blob_in_the_wrong_place_is_none() -> None:
    """Two digits that are not the digest's own."""
    encoded = Digest.of(b"x").encoded
    other = "00" if encoded[:2] != "00" else "11"
    assert parse_blob_key(f"blobs/sha256/{other}/{encoded}") is None
    assert parse_blob_key(f"blobs/md5/{encoded[:2]}/{encoded}") is None
