"""Answers with several errors."""

import json

from mirror.hosted.several import SeveralErrors
from mirror.oci.errors import Code, RegistryError


def test_several_errors_are_one_document() -> None:
    errors = [RegistryError(Code.MANIFEST_BLOB_UNKNOWN, name, status=400, detail=name) for name in ("a", "b")]
    found = SeveralErrors(errors)
    assert (found.status, found.message) == (400, "a (and 1 more)")
    assert [each["detail"] for each in json.loads(found.body())["errors"]] == ["a", "b"]
