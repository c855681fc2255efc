"""Credentials as values: what they show, and what no header can carry."""

import pytest

from mirror.credentials.credential import MOST_CHARACTERS, Credential, checked


def test_credential_shows_no_secret() -> None:
    """Neither its representation nor its text has more than the name."""
    login = Credential("me", "geheim", place="a file")
    assert "geheim" not in f"{login!r} {login}"
    assert login.basic == "Basic bWU6Z2VoZWlt"


def test_credential_with_an_identity_token_is_no_basic_header() -> None:
    """An identity token is for the token server."""
    assert Credential("me", "geheim", identity=True).basic is None


def test_credential_comparison_goes_by_what_is_sent() -> None:
    """The place in the source makes no difference."""
    login = Credential("me", "geheim", place="a file")
    assert login.same_login(Credential("me", "geheim"))
    assert not login.same_login(Credential("me", "other"))
    assert not login.same_login(Credential("me", "geheim", identity=True))
    assert not login.same_login(None)


@pytest.mark.parametrize(
    ("username", "secret", "reason"),
    [
        ("me", "", "empty"),
        ("me", "geheim\0", "zero byte"),
        ("a\r\nX: y", "geheim", "control character"),
        ("a\0b", "geheim", "control character"),
        ("a:b", "geheim", "colon"),
        ("me", "geheim" * MOST_CHARACTERS, "too long"),
        ("a\ud800", "s", "half of a character"),
        ("a", "s\udfff", "half of a character"),
    ],
)
def test_credential_that_cannot_be_sent_is_refused(username: str, secret: str, reason: str) -> None:
    """The reason repeats no part of it."""
    with pytest.raises(ValueError, match=reason) as raised:
        checked(username, secret)
    assert "geheim" not in str(raised.value)


def test_credential_with_many_lines_is_a_password() -> None:
    """The JSON key of a Google service account is one."""
    assert checked("_json_key", "{\n}\n").basic == "Basic X2pzb25fa2V5OnsKfQo="
