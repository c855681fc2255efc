"""Tokens stand for handles, until they expire, and only those of the same key."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.web.identity.credentials import WrongCredentials
from mirror.web.identity.signer import GRACE_SECONDS, PREFIX, TOKEN_SECONDS, Passed, TokenSigner, new_key

KEY = bytes(range(32))
HANDLES = ("user:0123456789abcdef:alice", "token:ci")


def read(token: str, now: float = 0.0, key: bytes = KEY) -> Passed:
    return TokenSigner(key, lambda: now).read(token)


def made(*handles: str) -> str:
    return TokenSigner(KEY, lambda: 0.0).make(handles)


def test_token_stands_for_its_handles_in_any_process_with_the_key() -> None:
    lifetime = TOKEN_SECONDS + GRACE_SECONDS
    assert read(made(*HANDLES), 10.0) == Passed(HANDLES, lifetime - 10.0)
    assert read(made()) == Passed((), lifetime)


def test_token_ends_after_the_time_that_clients_are_told() -> None:
    """Many clients do not ask for another one in mid-pull."""
    token = made(*HANDLES)
    assert read(token, TOKEN_SECONDS + 1.0).handles == HANDLES
    with pytest.raises(WrongCredentials, match="expired"):
        read(token, TOKEN_SECONDS + GRACE_SECONDS)


def test_token_of_another_key_is_refused() -> None:
    with pytest.raises(WrongCredentials):
        read(made(*HANDLES), key=new_key())
    assert new_key() != new_key()


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_changed_token_is_refused(place: int, change: int) -> None:
    data = bytearray(made(*HANDLES).encode())
    data[place % len(data)] ^= change
    with pytest.raises(WrongCredentials):
        read(data.decode("latin-1"))


@given(st.one_of(st.text(), st.text().map(PREFIX.__add__)))
def test_no_text_is_an_unexpected_error(token: str) -> None:
    with pytest.raises(WrongCredentials):
        read(token)


@pytest.mark.parametrize("cut", [1, 10, 43])
def test_token_without_its_whole_signature_is_refused(cut: int) -> None:
    with pytest.raises(WrongCredentials):
        read(made(*HANDLES)[:-cut])


def test_payload_of_a_client_is_not_even_read() -> None:
    payload = urlsafe_b64encode(b'[99999999999,"user:x:root"]').decode().rstrip("=")
    signature = made().rpartition(".")[2]
    with pytest.raises(WrongCredentials):
        read(f"{PREFIX}{payload}.{signature}")
    assert urlsafe_b64decode(payload + "=")
