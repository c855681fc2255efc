"""The compact form of a JSON Web Token (RFC 7515 7.1): header and claims, read before anything is proven.

They tell which issuer and which key to ask, and nothing else may be believed of them.
"""

import base64
import re
from typing import Any

from msgspec import Struct

from mirror.oci import json_text

# Longest token, in bytes: those of Kubernetes and GitLab have two or three thousand; groups may make more.
LONGEST = 16 * 1024

# Values in a header and in the claims, at most: some issuers list a user's groups.
HEADER_VALUES, CLAIM_VALUES = 64, 2_000

FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class JwtRefused(ValueError):
    """A token that is not taken. The message says why, for the operator, without the token."""


class UnprovenJwt(Struct, frozen=True):
    """A token as it came. `claims` are what it says, and not yet what is so."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def looks_like_jwt(text: str) -> bool:
    """Return whether a text has the form of a token; a header begins with `{"` in base64."""
    return text.startswith("eyJ") and text.count(".") == 2


def parse(text: str) -> UnprovenJwt:
    """Split a token. Raises JwtRefused."""
    if len(text) > LONGEST:
        raise JwtRefused(f"it is longer than {LONGEST} bytes")
    if FORM.fullmatch(text) is None:
        raise JwtRefused("it is no JSON Web Token")
    header, claims, _ = text.split(".")
    return UnprovenJwt(text, _object(header, HEADER_VALUES), _object(claims, CLAIM_VALUES))


def _object(part: str, most: int) -> dict[str, Any]:
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = json_text.parse(data, most)
    except ValueError:
        raise JwtRefused("it is no JSON Web Token") from None
    if not isinstance(value, dict):
        raise JwtRefused("it is no JSON Web Token")
    return value
