"""Reasons of refused pushes."""

from mirror.oci.digest import Digest
from mirror.store.hosted.errors import ContentMissing, QuotaExceeded, TagImmutable


def test_refusals_say_what_is_wrong() -> None:
    assert str(ContentMissing([Digest.of(b"a")])) == "1 contents are not in the repository"
    assert str(QuotaExceeded("office", 10, 8, 5)) == "office has 8 of 10 bytes, and 5 more were pushed"
    assert str(TagImmutable("v1", "sha256:x")) == "v1 is immutable, and points to sha256:x"
