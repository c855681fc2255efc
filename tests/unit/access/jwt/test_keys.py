"""Key sets: what is a key for signatures, and what is not taken for one."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.access.jwt.keys import DOCUMENT_BYTES, MOST_KEYS, parse_key_set
from tests.fakes.issuer import EC_KEY, ED_KEY, OTHER_RSA_KEY, RSA_KEY, jwk, key_set

RSA = jwk(RSA_KEY, "one", "RS256")


def test_key_set_has_the_keys_that_sign() -> None:
    """Each fits the algorithms of its kind, and the only one that it names."""
    keys = parse_key_set(key_set(RSA, jwk(EC_KEY, "two"), jwk(ED_KEY, "three"), jwk(OTHER_RSA_KEY, "four")))
    assert [(each.kid, each.kind, each.algorithm) for each in keys.keys] == [
        ("one", "RSA", "RS256"),
        ("two", "P-256", None),
        ("three", "Ed25519", None),
        ("four", "RSA", None),
    ]
    assert keys.knows("two")
    assert keys.knows(None)
    assert not keys.knows("five")
    assert keys.choose("one", "RS256") is not None
    assert keys.choose("one", "RS512") is None
    assert keys.choose("one", "ES256") is None
    assert keys.choose("four", "PS384") is not None
    assert keys.choose("two", "ES384") is None
    for algorithm in ("none", "HS256", "RS1", ""):
        assert all(keys.choose(kid, algorithm) is None for kid in ("one", "two", "three", None))


def test_key_set_needs_no_name_where_one_key_fits() -> None:
    """A token without `kid` is by the only key of its kind, and by none of two."""
    assert parse_key_set(key_set(jwk(RSA_KEY, None))).choose(None, "RS256") is not None
    both = parse_key_set(key_set(jwk(RSA_KEY, "a"), jwk(OTHER_RSA_KEY, "b"), jwk(EC_KEY, "c")))
    assert both.choose(None, "RS256") is None
    assert both.choose(None, "ES256") is not None


def test_key_set_never_has_a_private_half() -> None:
    """An issuer that publishes its private key by mistake makes this mirror no holder of it."""
    private = RSA_KEY.private_numbers().d.to_bytes(256, "big").hex()
    (key,) = parse_key_set(key_set({**RSA, "d": private})).keys
    assert isinstance(key.key, rsa.RSAPublicKey)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "x"},
        {**RSA, "use": "enc"},
        {**RSA, "alg": "HS256"},
        {**RSA, "alg": "none"},
        {**RSA, "alg": ["RS256"]},
        {**RSA, "kid": 7},
        {**RSA, "kid": "x" * 1000},
        {**RSA, "n": "AQAB"},
        {**RSA, "n": RSA["n"] * 8},
        {**RSA, "e": "A" * 400},
        {**RSA, "e": "AA"},
        {**RSA, "n": 7},
        {**RSA, "n": "é"},
        {"kty": "RSA"},
        {**jwk(EC_KEY, "x"), "x": "AQAB"},
        {**jwk(EC_KEY, "x"), "crv": "P-384"},
        {**jwk(ec.generate_private_key(ec.SECP256K1()), "x")},
        {**jwk(ED_KEY, "x"), "crv": "X25519"},
        {"kty": ["RSA"]},
        [],
        None,
        "RSA",
    ],
)
def test_key_set_skips_a_key_of_another_kind(wrong: Any) -> None:
    """The other keys stay; a set with no usable key is an error."""
    keys = parse_key_set(json.dumps({"keys": [wrong, jwk(EC_KEY, "two")]}).encode())
    assert [each.kid for each in keys.keys] == ["two"]
    with pytest.raises(ValueError, match="no key"):
        parse_key_set(json.dumps({"keys": [wrong]}).encode())


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": []}',
        b"[" * 100_000,
        b'{"keys": [' + b"0," * 100_000 + b"0]}",
        b" " * (DOCUMENT_BYTES + 1),
        b"\xff",
    ],
)
def test_key_set_refuses_another_document(document: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_key_set(document)


def test_key_set_is_bounded() -> None:
    """Not more keys than any issuer has."""
    keys = parse_key_set(key_set(*({**jwk(EC_KEY, "x"), "kid": str(each)} for each in range(MOST_KEYS + 10))))
    assert len(keys.keys) == MOST_KEYS


@settings(max_examples=30)
@given(st.none() | st.booleans() | st.text(max_size=9) | st.floats() | st.lists(st.text(max_size=9)))
def test_key_set_parser_takes_any_value(value: object) -> None:
    """A value in any place of a key is skipped or refused."""
    for name in ("kty", "n", "e", "kid", "alg", "use"):
        parse_key_set(json.dumps({"keys": [{**RSA, name: value}, jwk(EC_KEY, "two")]}).encode())
