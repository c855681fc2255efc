"""Proof of tokens: everything that is not expressly right is refused."""

import base64
import hashlib
import hmac
import json
import math
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from mirror.access.jwt.compact import JwtRefused, parse
from mirror.access.jwt.keys import parse_key_set
from mirror.access.jwt.verify import LEEWAY, Expected, verify
from tests.fakes.issuer import EC_KEY, ED_KEY, GITLAB, OTHER_RSA_KEY, RSA_KEY, jwk, key_set, raw_token, signed

NOW = 1_800_000_000.0
EXPECTED = Expected("https://gitlab.test", ("mirror", "https://mirror.lan"))
KEYS = parse_key_set(key_set(jwk(RSA_KEY, "one"), jwk(EC_KEY, "two"), jwk(ED_KEY, "three")))
CLAIMS: dict[str, Any] = {
    **GITLAB,
    "iss": EXPECTED.issuer,
    "aud": "mirror",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 300,
}


def claims(**changes: Any) -> dict[str, Any]:
    """Right claims, with changes; None leaves a claim out."""
    return {name: each for name, each in {**CLAIMS, **changes}.items() if each is not None}


def refusal(text: str) -> str:
    """Why a token is refused."""
    with pytest.raises(JwtRefused) as refused:
        verify(parse(text), KEYS, EXPECTED, NOW)
    assert text not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [
        *(
            (RSA_KEY, algorithm, "one")
            for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
        ),
        (EC_KEY, "ES256", "two"),
        (ED_KEY, "EdDSA", "three"),
        (RSA_KEY, "RS256", None),
    ],
)
def test_jwt_is_proven(key: Any, algorithm: str, kid: str | None) -> None:
    """The moment of its expiry is returned."""
    assert verify(parse(signed(CLAIMS, key, algorithm, kid)), KEYS, EXPECTED, NOW) == NOW + 300


@pytest.mark.parametrize("audience", ["https://mirror.lan", ["other", "mirror"], ["mirror", 7]])
def test_jwt_is_for_one_of_the_audiences(audience: object) -> None:
    verify(parse(signed(claims(aud=audience))), KEYS, EXPECTED, NOW)


@pytest.mark.parametrize("audience", [None, "", "other", [], ["mirror2"], {"mirror": 1}, 7, [["mirror"]]])
def test_jwt_for_another_audience_is_refused(audience: object) -> None:
    """A token that a job made for another service is worth nothing here."""
    assert "its audience must be mirror or https://mirror.lan" in refusal(signed(claims(aud=audience)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": "https://gitlab.test/"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"iss": ["https://gitlab.test"]}, "another issuer"),
        ({"exp": NOW - LEEWAY}, "expired 30 s ago"),
        ({"exp": NOW - 1e6}, "expired"),
        ({"exp": None}, "never expires"),
        ({"exp": "soon"}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"exp": math.inf}, "exp is no time"),
        ({"exp": int("9" * 400)}, "exp is no time"),
        ({"nbf": NOW + LEEWAY + 1}, "not valid before 31 s from now"),
        ({"iat": NOW + 3600}, "compare the clocks"),
        ({"nbf": []}, "nbf is no time"),
    ],
)
def test_jwt_with_wrong_claims_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(signed(claims(**changes)))


@pytest.mark.parametrize("changes", [{"exp": NOW - LEEWAY + 1}, {"iat": NOW + LEEWAY, "nbf": NOW + LEEWAY}])
def test_jwt_times_have_leeway(changes: dict[str, Any]) -> None:
    """Clocks that differ by less than half a minute refuse nobody."""
    verify(parse(signed(claims(**changes))), KEYS, EXPECTED, NOW)


def test_jwt_by_another_key_is_refused() -> None:
    """A key's name is no key."""
    assert refusal(signed(CLAIMS, OTHER_RSA_KEY)) == "its signature is wrong"
    assert refusal(signed(CLAIMS, OTHER_RSA_KEY, kid="four")) == "its issuer has no such key"
    assert refusal(signed(CLAIMS, OTHER_RSA_KEY, kid=None)) == "its signature is wrong"
    assert refusal(signed(CLAIMS, RSA_KEY, kid="two")) == "its issuer has no such key"
    assert "name of its key" in refusal(raw_token({"alg": "RS256", "kid": 7}, CLAIMS))


def test_jwt_that_was_changed_is_refused() -> None:
    """Other claims below the same signature prove nothing, nor does a signature that was cut off."""
    header, _, signature = signed(CLAIMS).split(".")
    other = raw_token({}, claims(project_path="org/other")).split(".")[1]
    assert refusal(f"{header}.{other}.{signature}") == "its signature is wrong"
    assert refusal(f"{header}.{other}.") == "its signature is wrong"


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", None, "HS256", "HS512", "RS1", 7, ["RS256"]]
)
def test_jwt_without_a_signature_of_a_key_pair_is_refused(algorithm: object) -> None:
    for signature in (b"", b"x"):
        assert "algorithm" in refusal(raw_token({"alg": algorithm, "kid": "one"}, CLAIMS, signature))


@pytest.mark.parametrize("kid", ["one", None])
def test_jwt_by_hmac_of_the_public_key_is_refused(kid: str | None) -> None:
    """Anybody who reads the public key could make such a token."""
    public = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, body = raw_token({"alg": "HS256", "kid": kid} if kid else {"alg": "HS256"}, CLAIMS).split(".")[:2]
    mac = hmac.digest(public, f"{head}.{body}".encode(), hashlib.sha256)
    forged = f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert "'HS256' is not taken" in refusal(forged)


def test_jwt_with_a_key_of_its_own_is_refused() -> None:
    """Keys and URLs of keys in a header are not read."""
    own = jwk(OTHER_RSA_KEY, "one")
    for header in ({"jwk": own}, {"jku": "https://elsewhere.test/keys"}, {"x5u": "https://elsewhere.test"}):
        assert refusal(signed(CLAIMS, OTHER_RSA_KEY, **header)) == "its signature is wrong"


def test_jwt_with_an_extension_is_refused() -> None:
    """Extensions that must be understood are refused (RFC 7515 4.1.11)."""
    assert "extension" in refusal(raw_token({"alg": "RS256", "crit": ["exp"]}, CLAIMS))
    assert "extension" in refusal(raw_token({"alg": "RS256", "b64": False}, CLAIMS))


def test_jwt_refusals_are_one_line_each() -> None:
    """A header of a stranger writes no line of its own into the log."""
    words = refusal(raw_token({"alg": "x\n" * 1000}, json.loads(json.dumps(CLAIMS))))
    assert "\n" not in words
    assert len(words) < 120
