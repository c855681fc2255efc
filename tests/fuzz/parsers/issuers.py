"""Parsers of tokens of foreign issuers, of their keys, and of secrets in paths."""

# ruff: noqa: PT017  # not a test: errors that a parser documents are looked at, and accepted

import json
from base64 import urlsafe_b64encode
from urllib.parse import unquote

from mirror.access.jwt.claims import MOST_PRINCIPALS, principals_of
from mirror.access.jwt.compact import JwtRefused, UnprovenJwt, looks_like_jwt, parse
from mirror.access.jwt.keys import ALGORITHMS, MOST_KEYS, parse_key_set
from mirror.access.jwt.verify import LEEWAY, Expected, verify
from mirror.access.secret_path import misplaced_secret, secret_path, shown_path
from tests.fakes.issuer import EC_KEY, ED_KEY, GITLAB, KUBERNETES, RSA_KEY, jwk, key_set, raw_token, signed
from tests.fuzz.parsers.identities import SECRETS, text_of
from tests.fuzz.parsers.trial import ACCEPTED, REFUSED, Parser

NOW = 1_800_000_000.0
EXPECTED = Expected("https://gitlab.lan", ("https://mirror.lan:5000", "mirror"))
CLAIMS = {**GITLAB, "iss": EXPECTED.issuer, "aud": "mirror", "iat": NOW - 5, "exp": NOW + 300}
DOCUMENT = key_set(jwk(RSA_KEY, "one", "RS256"), jwk(EC_KEY, "two"), jwk(ED_KEY, "three"))
KEYS = parse_key_set(DOCUMENT)
WANTED = ("project_path", "ref", "groups_direct", "kubernetes.io/serviceaccount/name")
VALID = [
    signed(CLAIMS),
    signed({**CLAIMS, "aud": ["x", "mirror"]}, EC_KEY, "ES256", "two"),
    signed(
        {**KUBERNETES, **{name: CLAIMS[name] for name in ("iss", "aud", "exp")}}, ED_KEY, "EdDSA", "three"
    ),
]
WRONG = [
    signed({**CLAIMS, "exp": NOW - 300}),
    signed({**CLAIMS, "aud": "other"}),
    raw_token({"alg": "none"}, CLAIMS, b""),
    raw_token({"alg": "HS256", "kid": "one"}, CLAIMS),
]


def check_jwt(data: bytes) -> bool:
    """No other header and claims are proven than those that an issuer has signed."""
    text = text_of(data)
    try:
        token = parse(text)
        verify(token, KEYS, EXPECTED, NOW)
    except JwtRefused as error:
        return _refused(error)
    # The last character of a signature has bits that mean nothing.
    assert text.rpartition(".")[0] in [each.rpartition(".")[0] for each in VALID]
    assert looks_like_jwt(text)
    return ACCEPTED


def check_claims(data: bytes) -> bool:
    """A proven token is by the issuer, for this mirror and of now; its names are one line each."""
    header, _, claims = data.partition(b"\n")
    body = b".".join(urlsafe_b64encode(each).rstrip(b"=") for each in (header, claims))
    text = f"{body.decode()}.{urlsafe_b64encode(ED_KEY.sign(body)).decode().rstrip('=')}"
    try:
        token = parse(text)
        expires = verify(token, KEYS, EXPECTED, NOW)
    except JwtRefused as error:
        return _refused(error)
    _check_proven(token, expires)
    names = principals_of("gitlab", WANTED, token.claims)
    assert list(names) == sorted(set(names))
    assert len(names) <= MOST_PRINCIPALS
    assert all(each.startswith("jwt:gitlab:") and each.isprintable() for each in names)
    return ACCEPTED


def _check_proven(token: UnprovenJwt, expires: float) -> None:
    assert token.header["alg"] == "EdDSA"
    assert token.claims["iss"] == EXPECTED.issuer
    audience = token.claims["aud"]
    listed = audience if isinstance(audience, list) else [audience]
    assert any(each in EXPECTED.audience for each in listed)
    assert expires == token.claims["exp"] > NOW - LEEWAY


def _refused(error: JwtRefused) -> bool:
    assert len(str(error)) < 300
    return REFUSED


def check_key_set(data: bytes) -> bool:
    """The keys of a set are of kinds that are taken, and no more than MOST_KEYS."""
    try:
        found = parse_key_set(data)
    except ValueError as error:
        assert len(str(error)) < 300
        return REFUSED
    assert 0 < len(found.keys) <= MOST_KEYS
    for each in found.keys:
        assert each.kind in ALGORITHMS.values()
        assert any(each.fits(algorithm) for algorithm in ALGORITHMS) or each.algorithm is not None
    return ACCEPTED


def check_secret_path(data: bytes) -> bool:
    """A path splits into a prefix with the secret, and a rest; no secret is shown, however it is encoded."""
    text = text_of(data)
    misplaced_secret(text)
    shown = shown_path(text)
    assert not any(each in shown or each in unquote(shown) for each in SECRETS)
    found = secret_path(text)
    if found is None:
        return REFUSED
    assert found.secret in found.prefix
    assert found.rest == "" or found.rest.startswith("/")
    assert text.startswith("/")
    return ACCEPTED


def _lines(header: object, claims: object) -> bytes:
    return json.dumps(header).encode() + b"\n" + json.dumps(claims).encode()


HEADER = {"alg": "EdDSA", "kid": "three", "typ": "JWT"}

PARSERS = (
    Parser(
        "jwt",
        check_jwt,
        tuple(each.encode() for each in [*VALID, *VALID, *WRONG]),
        (b".", b"eyJ", b"e30", b"=", b"W10", b"eyJhbGciOiJub25lIn0", b"-", b"_", b"bnVsbA"),
    ),
    Parser(
        "jwt claims",
        check_claims,
        (
            _lines(HEADER, CLAIMS),
            _lines({"alg": "EdDSA"}, {**CLAIMS, "aud": ["mirror"], "nbf": NOW, "sub": "ref_protected=true"}),
            _lines(HEADER, {**CLAIMS, "groups_direct": [["x"], 1, True, None, "a" * 600], "sub": ["a", {}]}),
            _lines(HEADER, {**CLAIMS, "kubernetes.io": {"serviceaccount": {"name": "builder"}}}),
        ),
        (
            *(
                b'"iss"',
                b'"aud"',
                b'"exp"',
                b'"sub"',
                b"null",
                b"[]",
                b"{}",
                b"true",
                b"1e999",
                b"NaN",
                b"-1",
            ),
            *(
                b'"alg": "none"',
                b'"crit": []',
                b'"HS256"',
                b'"RS256"',
                b"\\u0000",
                b"\\ud800",
                b'"mirror"',
                b",",
            ),
        ),
    ),
    Parser(
        "key set",
        check_key_set,
        (
            DOCUMENT,
            key_set(jwk(ED_KEY, None)),
            b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
            b'{"keys": []}',
        ),
        (
            b'"kty"',
            b'"RSA"',
            b'"EC"',
            b'"OKP"',
            b'"crv"',
            b'"n"',
            b'"e"',
            b'"AQAB"',
            b'"x"',
            b"null",
            b"[]",
            b'"alg"',
        ),
    ),
    Parser(
        "secret path",
        check_secret_path,
        (
            f"/t/{SECRETS[0]}/v2/".encode(),
            f"/t/{SECRETS[1]}/v2/quay.io/org/app/manifests/1".encode(),
            f"/v2/t/{SECRETS[0]}/docker.io/library/x/manifests/1".encode(),
            f"/t/{SECRETS[0]}/token".encode(),
            b"/t/abc/v2/",
        ),
        (b"/t/", b"/v2/", b"%2F", b"/", b"//", b"..", SECRETS[2].encode(), b"t", b"rmt_", b"/token", b"%74"),
    ),
)
