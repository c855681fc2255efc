"""Credentials are read from a request without an error that a client could cause."""

from base64 import b64encode

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from mirror.web.identity.credentials import (
    AUTHORIZATION_BYTES,
    BasicLogin,
    Credentials,
    WrongCredentials,
    parse_login,
)


def shown(*headers: str) -> Credentials:
    pairs = CIMultiDict([("Authorization", each) for each in headers])
    return Credentials.of_header(make_mocked_request("GET", "/v2/a%2Fb?ns=x", headers=pairs), "10.0.0.1")


def basic(text: bytes) -> str:
    return b64encode(text).decode()


def test_request_without_a_header_shows_its_address() -> None:
    assert shown() == Credentials("10.0.0.1")


def test_path_is_undecoded_and_without_its_query() -> None:
    request = make_mocked_request("GET", "/v2/a%2Fb?ns=x", headers={"Authorization": "Basic YTpi"})
    assert Credentials.of_path(request, "10.0.0.1") == Credentials("10.0.0.1", "/v2/a%2Fb")


@pytest.mark.parametrize("header", ["Basic Og==", "basic  Og==", " BASIC Og== "])
def test_basic_without_user_and_password_is_nobody(header: str) -> None:
    """Podman and skopeo send that when they have no login."""
    assert shown(header) == shown()


@pytest.mark.parametrize(
    ("header", "scheme", "value", "login"),
    [
        (f"Basic {basic(b'alice:secret')}", "basic", basic(b"alice:secret"), BasicLogin("alice", "secret")),
        (f"bAsIc   {basic(b'alice:a:b')}", "basic", basic(b"alice:a:b"), BasicLogin("alice", "a:b")),
        ("Basic", "basic", "", None),
        ("Bearer abc.def", "bearer", "abc.def", None),
        ("", "", "", None),
        ("Digest x", "digest", "x", None),
    ],
)
def test_header_is_scheme_and_value(header: str, scheme: str, value: str, login: BasicLogin | None) -> None:
    found = shown(header)
    assert (found.scheme, found.value, found.login) == (scheme, value, login)


@pytest.mark.parametrize("headers", [("Basic YTpi", "Basic YTpi"), ("Bearer " + "x" * AUTHORIZATION_BYTES,)])
def test_header_that_is_too_long_or_there_twice_is_refused(headers: tuple[str, ...]) -> None:
    with pytest.raises(WrongCredentials) as refused:
        shown(*headers)
    assert refused.value.status == 401
    assert "xxx" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "login"),
    [
        ("ä:ö".encode(), BasicLogin("ä", "ö")),
        ("ä:ö".encode("latin-1"), BasicLogin("ä", "ö")),
        (b"alice:", BasicLogin("alice", "")),
        (b"alice", None),
        (b":secret", None),
        (b"", None),
        (b"a\0b:c", BasicLogin("a\0b", "c")),
    ],
)
def test_login_is_user_and_password(data: bytes, login: BasicLogin | None) -> None:
    assert parse_login(basic(data)) == login


@given(st.one_of(st.text(), st.binary().map(basic)))
def test_no_value_of_basic_is_an_error(value: str) -> None:
    found = parse_login(value)
    assert found is None or found.user
