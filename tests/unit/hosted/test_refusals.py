"""Answers to refused pushes."""

import json

import pytest

from mirror.hosted.refusals import MOST_ERRORS, refusal
from mirror.oci.digest import Digest
from mirror.store.errors import NoRoom, StoreError
from mirror.store.hosted.errors import (
    BlobLost,
    ContentMissing,
    PushRefused,
    QuotaExceeded,
    TagImmutable,
    TypeFixed,
)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ContentMissing([Digest.of(b"a")]), 400, "MANIFEST_BLOB_UNKNOWN"),
        (BlobLost(Digest.of(b"a")), 400, "BLOB_UPLOAD_INVALID"),
        (QuotaExceeded("office", 10, 9, 2), 403, "DENIED"),
        (QuotaExceeded("office", 10, 2, 5, coming=4), 403, "DENIED"),
        (TagImmutable("v1", "sha256:x"), 409, "DENIED"),
        (TypeFixed(Digest.of(b"a"), "application/json"), 409, "DENIED"),
        (NoRoom("1 byte"), 507, "DENIED"),
        (StoreError("broken"), 503, "UNAVAILABLE"),
    ],
)
def test_refusals_have_status_code_and_own_words(
    error: PushRefused | StoreError, status: int, code: str
) -> None:
    """Docker tries again for 50 s after an error with the standard text of its code."""
    found = refusal(error)
    assert (found.status, found.code) == (status, code)
    assert len(found.message) > 30


def test_missing_contents_are_bounded() -> None:
    found = refusal(ContentMissing([Digest.of(bytes([n % 256, n // 256])) for n in range(1000)]))
    assert len(json.loads(found.body())["errors"]) == MOST_ERRORS
