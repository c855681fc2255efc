import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.guests.guest_login import LONGEST, GuestLogin


def header(text: bytes, scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(text).decode()}"


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_guest_login_has_user_and_password(scheme: str) -> None:
    assert GuestLogin.parse(header(b"me:a:b", scheme)) == GuestLogin("me", "a:b")


def test_guest_login_has_a_token() -> None:
    assert GuestLogin.parse("Bearer abc.def") == GuestLogin(token="abc.def")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Basic",
        "Basic Og==",
        "Basic ????",
        "Bearer",
        "Bearer a b",
        "Bearer a\x00b",
        "Digest x",
        header(b"me"),
        header(b"me:"),
        header(b":x"),
        header(b"me:a\nb"),
        header(b"m\x7fe:a"),
        header(b"\xff:a"),
        "Bearer " + LONGEST * "x",
    ],
)
def test_guest_login_of_nobody_is_none(text: str) -> None:
    assert GuestLogin.parse(text) is None


@given(st.text(max_size=40) | st.binary(max_size=40).map(header))
def test_guest_login_never_raises(text: str) -> None:
    found = GuestLogin.parse(text)
    assert found is None or found.token or (found.user and found.password)


def test_guest_login_shows_no_secret() -> None:
    for login in (GuestLogin("me", "canary"), GuestLogin(token="canary")):
        assert "canary" not in f"{login} {login!r} {[login]}"
        assert login.redacted("a canary here") == "a *** here"


def test_guest_login_key_tells_credentials_apart() -> None:
    logins = [GuestLogin("a", "b"), GuestLogin("a", "c"), GuestLogin("ab", ""), GuestLogin(token="ab")]
    assert len({each.key() for each in logins}) == len(logins)
    assert GuestLogin("a", "b").key() == GuestLogin("a", "b").key()
