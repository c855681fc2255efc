"""Output of password_command: text, JSON, and what is neither."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.credentials.command import answer_of
from mirror.credentials.credential import Answer, Credential, CredentialError
from mirror.credentials.process import Finished


def answer(output: bytes | str, status: int = 0) -> Answer:
    data = output.encode() if isinstance(output, str) else output
    return answer_of("prog", "me", Finished(status, data), 900.0, clock=lambda: 1000.0)


def test_command_prints_a_password() -> None:
    """`aws ecr get-login-password` and `gcloud auth print-access-token` end it with a line break."""
    assert answer("geheim\n") == Answer(Credential("me", "geheim"), fresh=900.0)


@pytest.mark.parametrize(
    ("document", "lifetime"),
    [
        ({"password": "geheim", "expires_in": 60}, 60.0),
        ({"password": "geheim", "expires": 1120}, 120.0),
        ({"password": "geheim", "expires": "1970-01-01T00:20:00Z"}, 200.0),
        ({"password": "geheim", "expires": "1970-01-01T01:20:00+01:00"}, 200.0),
        ({"password": "geheim", "expires": "1970-01-01T00:20:00"}, 200.0),
        ({"password": "geheim"}, math.inf),
        ({"Username": "me", "Secret": "geheim", "ServerURL": "x"}, math.inf),
    ],
)
def test_command_prints_json_with_the_end_of_the_password(document: object, lifetime: float) -> None:
    """A time without a zone is UTC."""
    found = answer(json.dumps(document))
    assert found.credential is not None
    assert (found.credential.username, found.credential.secret) == ("me", "geheim")
    assert found.lifetime == lifetime
    assert found.fresh == min(lifetime, 900.0) if lifetime == math.inf else lifetime


def test_command_may_name_the_user() -> None:
    """The printed name overrules the configured one."""
    found = answer('{"username": "AWS", "password": "geheim"}').credential
    assert found is not None
    assert found.username == "AWS"


@pytest.mark.parametrize(
    ("output", "status", "reason"),
    [
        ("geheim", 1, "ended with status 1"),
        ("", 0, "empty"),
        ("geheim\nzwei", 0, "line break"),
        (b"geheim\xff", 0, "something else than text"),
        ('{"geheim"', 0, "not JSON"),
        ('{"geheim": 1}', 0, "no text called password"),
        ('{"password": "geheim", "expires_in": 0}', 0, "have expired already"),
        ('{"password": "geheim", "expires_in": NaN}', 0, "have expired already"),
        ('{"password": "geheim", "expires": "geheim"}', 0, "expires is no time"),
        ('{"password": "geheim", "expires": "0001-01-01T00:00:00+14:00"}', 0, "expire"),
    ],
)
def test_command_output_that_is_no_password_is_not_quoted(
    output: bytes | str, status: int, reason: str
) -> None:
    """A program that fails may have printed a secret first."""
    with pytest.raises(CredentialError, match=reason) as raised:
        answer(output, status)
    assert "geheim" not in str(raised.value)


@given(st.integers(-1, 1), st.binary(max_size=100) | st.text(max_size=50).map(lambda text: "{" + text))
def test_command_output_raises_credential_errors_only(status: int, output: bytes | str) -> None:
    """Any output is a password or one error."""
    try:
        found = answer(output, status)
    except CredentialError:
        return
    assert found.credential is not None
