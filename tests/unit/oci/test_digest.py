"""Digests: each has one spelling, and any other text is refused."""

import hashlib

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digest_prints_as_written(algorithm: str) -> None:
    """A parsed, a computed and a printed digest are equal."""
    text = f"{algorithm}:{hashlib.new(algorithm, b'x').hexdigest()}"
    digest = Digest.parse(text)
    assert str(digest) == text
    assert digest == Digest.of(b"x", algorithm)
    hasher = digest.hasher()
    hasher.update(b"x")
    assert hasher.hexdigest() == digest.encoded


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:abc",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "SHA256:" + "0" * 64,
        "sha512:" + "0" * 64,
        "md5:" + "0" * 32,
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "\u0660" * 64,
    ],
)
def test_invalid_digest_is_refused(text: str) -> None:
    """The error is DIGEST_INVALID, 400, and names the right form."""
    with pytest.raises(RegistryError, match="64") as refused:
        Digest.parse(text)
    assert (refused.value.code, refused.value.status) == (Code.DIGEST_INVALID, 400)
