"""Answers of token servers: token and lifetime."""

import json

import pytest

from mirror.upstream.http.token_answer import DEFAULT_LIFETIME, LONGEST_LIFETIME, token_of


@pytest.mark.parametrize(
    ("answer", "lifetime"),
    [
        ({}, DEFAULT_LIFETIME),
        ({"expires_in": 300}, 300),
        ({"expires_in": 0.5}, 0.5),
        ({"expires_in": True}, DEFAULT_LIFETIME),
        ({"expires_in": -1}, DEFAULT_LIFETIME),
        ({"expires_in": 86400}, LONGEST_LIFETIME),
        ({"expires_in": 10**12}, DEFAULT_LIFETIME),
    ],
)
@pytest.mark.parametrize("name", ["token", "access_token"])
def test_token_answer(name: str, answer: dict[str, object], lifetime: float) -> None:
    """Both names of the token, and every lifetime that is sent."""
    assert token_of(json.dumps({name: "abc", **answer}).encode()) == ("Bearer abc", lifetime)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"<html>", b'{"token":1}', b'{"token":"a\\nb"}'])
def test_token_answer_without_a_token(body: bytes) -> None:
    """Anything else is an error."""
    with pytest.raises(ValueError, match="holds no token"):
        token_of(body)
