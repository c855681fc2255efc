"""The proof of a JSON Web Token: signature, issuer, audience, times. Imports cryptography.

Everything that is not expressly right is refused, with one sentence for the operator's log.
"""

import math
from collections.abc import Mapping
from typing import Any

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from msgspec import Struct

from mirror.access.jwt.compact import JwtRefused, UnprovenJwt
from mirror.access.jwt.keys import ALGORITHMS, KEY_ID_LENGTH, KeySet

# Difference between the clocks of issuer and mirror that is overlooked, in seconds.
LEEWAY = 30.0

_JWS = PyJWS(algorithms=list(ALGORITHMS))


class Expected(Struct, frozen=True):
    """The issuer that a token must be by, and the audiences of which it must be for one."""

    issuer: str
    audience: tuple[str, ...]


def algorithm_of(token: UnprovenJwt) -> str:
    """Return the signature algorithm of a token. Raises JwtRefused for one that is not taken."""
    algorithm = token.header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise JwtRefused(f"its algorithm {str(algorithm)[:20]!r} is not taken: sign with RS256 or ES256")
    if "crit" in token.header or "b64" in token.header:
        raise JwtRefused("its header has an extension that is not taken")
    return algorithm


def key_id_of(token: UnprovenJwt) -> str | None:
    """Return the name of the key that a token is signed with; None if its header has none."""
    kid = token.header.get("kid")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= KEY_ID_LENGTH):
        raise JwtRefused("the name of its key is not taken")
    return kid


def verify(token: UnprovenJwt, keys: KeySet, expected: Expected, now: float) -> float:
    """Return when the token expires; after that its claims are proven. Raises JwtRefused."""
    algorithm, kid = algorithm_of(token), key_id_of(token)
    key = keys.choose(kid, algorithm)
    if key is None:
        raise JwtRefused("its issuer has no such key" if kid else "it does not say which key signed it")
    try:
        _JWS.decode(token.text, key=key.key, algorithms=[algorithm])
    except (PyJWTError, ValueError, TypeError):
        raise JwtRefused("its signature is wrong") from None
    return _check_claims(token.claims, expected, now)


def _check_claims(claims: Mapping[str, Any], expected: Expected, now: float) -> float:
    if claims.get("iss") != expected.issuer:
        raise JwtRefused("it is by another issuer")
    if not _audiences(claims.get("aud")) & set(expected.audience):
        raise JwtRefused(f"it is not for this mirror: its audience must be {' or '.join(expected.audience)}")
    expires = _moment(claims, "exp")
    if expires is None:
        raise JwtRefused("it never expires: its issuer must set exp")
    if now >= expires + LEEWAY:
        raise JwtRefused(f"it expired {now - expires:.0f} s ago")
    begins = max(_moment(claims, "nbf") or 0.0, _moment(claims, "iat") or 0.0)
    if now + LEEWAY < begins:
        raise JwtRefused(f"it is not valid before {begins - now:.0f} s from now: compare the clocks")
    return expires


def _audiences(value: object) -> set[str]:
    """Return the audiences of a token: the claim is one text or a list of texts."""
    listed = value if isinstance(value, list) else [value]
    return {each for each in listed if isinstance(each, str)}


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a time of the claims in seconds since the epoch; None if it is not there."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise JwtRefused(f"its claim {name} is no time")
    return float(value)
