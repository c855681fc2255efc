"""Registry errors: body and status."""

import json

import pytest

from mirror.oci.errors import STATUS, Code, RegistryError


def test_error_body_is_an_oci_error() -> None:
    """The body has code, message and optional detail in the form of the specification."""
    error = RegistryError(Code.MANIFEST_UNKNOWN, "no such tag", detail={"tag": "t"})
    assert json.loads(error.body()) == {
        "errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such tag", "detail": {"tag": "t"}}]
    }
    assert json.loads(RegistryError(Code.UNKNOWN, "x").body()) == {
        "errors": [{"code": "UNKNOWN", "message": "x"}]
    }


@pytest.mark.parametrize("code", Code)
def test_error_code_has_a_status(code: Code) -> None:
    """A code outside the table has status 400: the mistake is the client's."""
    error = RegistryError(code, "x")
    assert error.status == STATUS.get(code, 400)
    assert str(error) == f"{code.value}: x"
    assert RegistryError(code, "x", status=418, headers={"A": "b"}).status == 418
