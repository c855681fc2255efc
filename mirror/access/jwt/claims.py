"""Claims of a proven token become principals: `jwt:ISSUER:SUBJECT` and `jwt:ISSUER:CLAIM=VALUE`.

The subject is a principal in both forms, `jwt:gitlab:SUBJECT` and `jwt:gitlab:sub=SUBJECT`. A subject that
begins like a claim has the second form alone: an issuer that lets users choose their subject must not let
them choose `ref_protected=true`. Values are texts, whole numbers, truth values, and lists of those (groups).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Longest value, in characters, and most principals of one token. A longer value matches no rule; of more
# principals the first ones count.
VALUE_LENGTH = 512
MOST_PRINCIPALS = 64

# A subject that could be taken for a claim.
LIKE_A_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]*=")


def principals_of(issuer: str, wanted: Sequence[str], claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the principals of a token by the issuer of that name; `wanted`: the claims that become some."""
    found: dict[str, None] = {}
    for subject in _values(claims.get("sub")):
        if LIKE_A_CLAIM.match(subject) is None:
            found[f"jwt:{issuer}:{subject}"] = None
    for name in ("sub", *wanted):
        for value in _values(_claim(claims, name)):
            found[f"jwt:{issuer}:{name}={value}"] = None
    return tuple(sorted([*found][:MOST_PRINCIPALS]))


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """Return a claim by its name, or one inside of others by a path: `kubernetes.io/serviceaccount/name`."""
    value: Any = claims
    if name in claims:
        return claims[name]
    for key in name.split("/"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _values(value: object) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        text = _text(each)
        if text and len(text) <= VALUE_LENGTH and text.isprintable():
            yield text


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""
