"""The one error that a client sees."""

import json

import pytest

from mirror.oci.errors import STATUS, Code, RegistryError


def test_the_body_is_an_oci_error() -> None:
    """Code, message and, where there is one, detail, in the form the specification has."""
    error = RegistryError(Code.MANIFEST_UNKNOWN, "no such tag", detail={"tag": "t"})
    assert json.loads(error.body()) == {
        "errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such tag", "detail": {"tag": "t"}}]
    }
    assert json.loads(RegistryError(Code.UNKNOWN, "x").body()) == {
        "errors": [{"code": "UNKNOWN", "message": "x"}]
    }


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_status(code: Code) -> None:
    """By the table, or 400: what is not in it is the client's mistake."""
    error = RegistryError(code, "x")
    assert error.status == STATUS.get(code, 400)
    assert str(error) == f"{code.value}: x"
    assert RegistryError(code, "x", status=418, headers={"A": "b"}).status == 418
