"""Answer of a token server: the token and its lifetime; pure."""

import re

from mirror.oci import json_text

# Values in a token server's answer: it has five, and some servers add claims.
_MAX_VALUES = 1000
# The specification's default in seconds, for the many servers that omit expires_in.
DEFAULT_LIFETIME = 60.0
# Longest use of a token, in seconds, whatever its server says: what was revoked since then ends.
LONGEST_LIFETIME = 3600.0
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


def token_of(body: bytes) -> tuple[str, float]:
    """Return the Authorization header that an answer grants, and its lifetime in seconds.

    Raises ValueError if the answer holds no token.
    """
    try:
        document = json_text.parse(body, _MAX_VALUES)
    except ValueError:
        document = None
    answer = document if isinstance(document, dict) else {}
    token = answer.get("token") or answer.get("access_token")
    if not isinstance(token, str) or not _HEADER_SAFE.fullmatch(token):
        raise ValueError("the token server's answer holds no token")
    return f"Bearer {token}", _lifetime(answer.get("expires_in"))


def _lifetime(expires_in: object) -> float:
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return DEFAULT_LIFETIME
    return min(float(expires_in), LONGEST_LIFETIME) if 0 < expires_in < 10**9 else DEFAULT_LIFETIME
