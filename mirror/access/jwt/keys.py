"""The public keys of an issuer, from a JSON Web Key Set (RFC 7517). Imports cryptography.

Keys that this mirror cannot use are skipped: an issuer may have some for other readers. Symmetric ones are:
with a shared secret the mirror could sign as the issuer does.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from msgspec import Struct

from mirror.oci import json_text

# Longest document, and most keys of it that are used. Large issuers have some ten; Azure AD had 40 KiB.
DOCUMENT_BYTES = 512 * 1024
MOST_KEYS = 100
MOST_VALUES = 10_000

# Longest name of a key, in characters.
KEY_ID_LENGTH = 512

# Sizes of RSA keys, in bits: less is broken, and more costs the event loop milliseconds for each signature.
LEAST_RSA_BITS, MOST_RSA_BITS = 2048, 8192

# A part of a key: base64url of 8192 bits and some more. A public exponent is 65537, hardly ever another one.
PART = re.compile(r"[A-Za-z0-9_=-]{1,1400}")
EXPONENT = re.compile(r"[A-Za-z0-9_=-]{1,8}")

# The signature algorithms that are taken, all of them asymmetric, and the kind of key that each needs.
ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
}


class VerificationKey(Struct, frozen=True, eq=False):
    """One key. `kind`: "RSA", or the name of its curve. `algorithm`: the only one that the key is for."""

    kid: str | None
    kind: str
    algorithm: str | None
    key: Any

    def fits(self, algorithm: str) -> bool:
        """Return whether a signature by this algorithm can be by this key."""
        return ALGORITHMS.get(algorithm) == self.kind and self.algorithm in (None, algorithm)


class KeySet(Struct, frozen=True, eq=False):
    """The keys of an issuer at some time."""

    keys: tuple[VerificationKey, ...] = ()

    def knows(self, kid: str | None) -> bool:
        """Return whether a key has this name; with None, whether there is any key."""
        return any(kid is None or each.kid == kid for each in self.keys)

    def choose(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key that a token's header means; without `kid` the only key that fits."""
        fitting = [each for each in self.keys if each.fits(algorithm) and (kid is None or each.kid == kid)]
        return fitting[0] if fitting and (kid is not None or len(fitting) == 1) else None


def parse_key_set(document: bytes) -> KeySet:
    """Return the usable keys of a document. Raises ValueError if it is no key set, or has no usable key."""
    if len(document) > DOCUMENT_BYTES:
        raise ValueError(f"it is longer than {DOCUMENT_BYTES} bytes")
    parsed = json_text.parse(document, MOST_VALUES)
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list):
        raise ValueError('it is no key set: it has no list "keys"')
    keys = tuple(_usable(listed[:MOST_KEYS]))
    if not keys:
        raise ValueError("it has no key for signatures that this mirror takes (RSA, EC or Ed25519)")
    return KeySet(keys)


def _usable(listed: Sequence[object]) -> Iterator[VerificationKey]:
    for each in listed:
        if isinstance(each, dict) and each.get("use", "sig") == "sig":
            with suppress(PyJWTError, ValueError, TypeError, KeyError):
                yield _key(each)


def _key(jwk: Mapping[str, Any]) -> VerificationKey:
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= KEY_ID_LENGTH)):
        raise ValueError("kid")
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise ValueError("alg")
    kind, key = _public_key(jwk)
    return VerificationKey(kid, kind, algorithm, key)


def _public_key(jwk: Mapping[str, Any]) -> tuple[str, Any]:
    """Return kind and key, from the public parts alone, whatever else the document has."""
    family: type[Algorithm]
    parts: tuple[str, ...]
    if jwk["kty"] == "RSA":
        kind, family, parts = "RSA", RSAAlgorithm, ("n", "e")
    elif jwk["kty"] == "EC":
        kind, family, parts = jwk["crv"], ECAlgorithm, ("x", "y")
    elif jwk["kty"] == "OKP":
        kind, family, parts = jwk["crv"], OKPAlgorithm, ("x",)
    else:
        raise ValueError("kty")
    public = {"kty": jwk["kty"], **({"crv": kind} if kind != "RSA" else {})}
    for part in parts:
        if (EXPONENT if part == "e" else PART).fullmatch(jwk[part]) is None:
            raise ValueError(part)
        public[part] = jwk[part]
    if kind not in ALGORITHMS.values():
        raise ValueError("crv")
    key: Any = family.from_jwk(public)
    if kind == "RSA" and not LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
        raise ValueError("size")
    return kind, key
